//! The pipe device: MJPEG or PCM that anything can write into a FIFO or an inherited descriptor.
//! Must never wait for a writer beyond its deadline, nor believe what a writer sends.

mod arrival;
mod inlet;
mod pictures;
mod sound;

use super::{Device, DeviceError, Wake};
use crate::session::device::{Address, DeviceSpec, MediaType};

use inlet::Inlet;
use pictures::Pictures;
use sound::Sound;

/// Opens the FIFO or descriptor of `spec`. Pictures come as concatenated JPEGs; their size is that of
/// the wish, else that of the first picture, which is waited for up to 5 s. Sound comes as S16LE,
/// 48 kHz mono unless the wish says otherwise.
///
/// # Errors
/// There is nothing at the path, it is no pipe, another source reads it, or no picture came.
pub fn open(spec: &DeviceSpec, wake: &Wake) -> Result<Box<dyn Device>, DeviceError> {
    let path = match &spec.address {
        Address::Pipe { path } => path.as_str(),
        _ => "",
    };
    let inlet = Inlet::open(&spec.label, path, wake)?;
    Ok(match spec.media {
        MediaType::Video => Box::new(Pictures::open(inlet, &spec.wish)?),
        MediaType::Audio => Box::new(Sound::open(inlet, &spec.wish)?),
    })
}
