//! The names that ALSA's PCMs go by. Must never open one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::media::TimestampSource;

/// PCM names that lead to a kernel device without a plugin that could make up stamps.
const HARDWARE: [&str; 5] = ["hw", "plughw", "dsnoop", "front", "sysdefault"];

/// The spellings of `pcm` to look for, the given one first: cpal finds a PCM by the very name that it
/// lists, which is `hw:CARD=x,DEV=n` with the card's id, its number, or both.
pub fn spellings(pcm: &str) -> Vec<String> {
    let mut spellings = vec![pcm.to_owned()];
    if let Some((kind, [card, device, "0"])) = parts(pcm) {
        spellings.push(format!("{kind}:CARD={card},DEV={device}"));
        spellings.extend(number_of(card).map(|number| format!("{kind}:CARD={number},DEV={device}")));
    }
    spellings
}

/// The directory of the card that a name such as `hw:CARD=x,DEV=n` means.
pub fn card_dir(pcm: &str) -> Option<PathBuf> {
    let (_, [card, ..]) = parts(pcm)?;
    let card = if card.bytes().all(|c| c.is_ascii_digit()) { format!("card{card}") } else { card.to_owned() };
    Some(Path::new("/proc/asound").join(card))
}

/// Whether this process may open the control node of any card.
pub fn can_open_cards() -> bool {
    let nodes = fs::read_dir("/dev/snd").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut controls = nodes.filter(|node| node.to_string_lossy().contains("/controlC"));
    controls.any(|node| File::open(node).is_ok())
}

/// Who stamps the sound of `pcm`: one that somebody defined can end in a plugin, whose stamps are
/// times of arrival.
pub fn stamps(pcm: &str) -> TimestampSource {
    let kind = pcm.split(':').next().unwrap_or_default();
    if HARDWARE.contains(&kind) { TimestampSource::Driver } else { TimestampSource::Arrival }
}

/// Kind, card, device and subdevice of a name with a card, whether by position or by key.
fn parts(pcm: &str) -> Option<(&str, [&str; 3])> {
    let (kind, arguments) = pcm.split_once(':')?;
    let mut parts = ["", "0", "0"];
    for (position, argument) in arguments.split(',').enumerate() {
        let (position, value) = match argument.split_once('=') {
            Some((key, value)) => (["CARD", "DEV", "SUBDEV"].iter().position(|known| *known == key)?, value),
            None => (position, argument),
        };
        *parts.get_mut(position)? = value.trim();
    }
    (!parts[0].is_empty()).then_some((kind, parts))
}

fn number_of(card: &str) -> Option<String> {
    let link = fs::read_link(Path::new("/proc/asound").join(card)).ok()?;
    link.to_str()?.strip_prefix("card").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_device_leads_to_the_listed_name() {
        for pcm in ["hw:NoCard,1,0", "hw:NoCard,1", "hw:CARD=NoCard,DEV=1,SUBDEV=0", "hw:DEV=1,CARD=NoCard"] {
            assert_eq!(spellings(pcm), [pcm, "hw:CARD=NoCard,DEV=1"], "{pcm}");
        }
        assert_eq!(spellings("plughw:3"), ["plughw:3", "plughw:CARD=3,DEV=0"]);
    }

    #[test]
    fn a_certain_subdevice_is_not_taken_for_any() {
        assert_eq!(spellings("hw:NoCard,1,7"), ["hw:NoCard,1,7"]);
    }

    #[test]
    fn other_names_stay_as_they_are() {
        for pcm in ["vmic", "hw:", "hw:CARD=x,AES0=1", "surround:1,2,3,4"] {
            assert_eq!(spellings(pcm), [pcm], "{pcm}");
        }
    }

    #[test]
    fn a_card_is_found_in_a_name() {
        assert_eq!(card_dir("hw:CARD=PCH,DEV=0"), Some("/proc/asound/PCH".into()));
        assert_eq!(card_dir("hw:1,0"), Some("/proc/asound/card1".into()));
        assert_eq!(card_dir("vmic"), None);
    }

    #[test]
    fn only_kernel_devices_vouch_for_their_stamps() {
        assert_eq!(stamps("hw:CARD=PCH,DEV=0"), TimestampSource::Driver);
        assert_eq!(stamps("plughw:1,0"), TimestampSource::Driver);
        assert_eq!(stamps("vmic"), TimestampSource::Arrival);
        assert_eq!(stamps("default"), TimestampSource::Arrival);
    }
}
