//! A finished file against what its receipt says of it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::matroska::{self, Damage};
use crate::session::MediaFile;
use crate::telemetry::chain;

/// Bytes that are hashed between two words about the progress.
const PIECE_BYTES: usize = 1 << 20;

/// What was found of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// It is what its receipt says.
    Whole,
    /// It isn't there.
    Missing,
    /// It has another length.
    Length {
        /// Its bytes.
        bytes: u64,
    },
    /// Its hash is another one: the disk doesn't give what was written.
    Rotten {
        /// Where, as far as that shows; a header that can't be read comes as a sentence.
        damage: Result<Damage, String>,
    },
}

/// Reads all of a file; `progress` hears of every piece.
///
/// # Errors
/// It can't be read.
pub fn examine(told: &MediaFile, mut progress: impl FnMut(u64)) -> io::Result<Examined> {
    let path = Path::new(&told.path);
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Examined::Missing),
        opened => opened?,
    };
    let bytes = file.metadata()?.len();
    if bytes != told.bytes {
        return Ok(Examined::Length { bytes });
    }
    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE_BYTES]);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            break;
        }
        hasher.update(&piece[..count]);
        progress(count as u64);
    }
    if hasher.finalize().to_hex().as_str() == told.blake3 {
        return Ok(Examined::Whole);
    }
    let damage = matroska::damage(BufReader::new(File::open(path)?));
    Ok(Examined::Rotten { damage: damage.map_err(|error| chain(&error)) })
}
