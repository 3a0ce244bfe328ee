//! Microphones: the capture devices of ALSA's cards, and PCMs that somebody defined with a `hint`.
//! Must never open a PCM: that can hang, and takes the device from others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cpal::HostId;
use cpal::traits::{DeviceTrait, HostTrait};

use super::identity;
use crate::session::device::{DeviceKey, FoundDevice, MediaType};

/// PCMs without a card that ALSA and its plugins define themselves (`aplay -L` on a bare host).
const BUILT_IN: [&str; 20] = [
    "null",
    "default",
    "sysdefault",
    "pulse",
    "pipewire",
    "jack",
    "oss",
    "lavrate",
    "samplerate",
    "speexrate",
    "speex",
    "upmix",
    "vdownmix",
    "usbstream",
    "hw",
    "plughw",
    "dmix",
    "dsnoop",
    "plug",
    "cards",
];

/// A device of a sound card.
struct HardwarePcm {
    card: String,
    device: u32,
}

/// The microphones of this host: cards by name, then defined PCMs by name.
///
/// # Errors
/// ALSA could not be loaded, or its configuration is broken.
pub fn discover() -> Result<Vec<FoundDevice>, cpal::Error> {
    let host = cpal::host_from_id(HostId::Alsa)?;
    let mut found: BTreeMap<(bool, String), FoundDevice> = BTreeMap::new();
    for device in host.devices()? {
        let Ok(id) = device.id() else { continue };
        let name = device.description().map_or_else(|_| id.id().to_owned(), |known| known.name().to_owned());
        let microphone = match HardwarePcm::parse(id.id()) {
            Some(pcm) if pcm.captures(device.supports_input()) => pcm.describe(&name),
            None if device.supports_input() && is_defined_by_somebody(id.id(), &name) => {
                describe_defined(id.id(), &name)
            }
            _ => continue,
        };
        // ALSA lists a card's devices by the card's id and by its number.
        found.entry((microphone.bus == microphone.node, microphone.node.clone())).or_insert(microphone);
    }
    Ok(found.into_values().collect())
}

impl HardwarePcm {
    /// Reads `hw:CARD=x,DEV=n`, where x is the id of a card or its number.
    fn parse(pcm: &str) -> Option<Self> {
        let (card, device) = pcm.strip_prefix("hw:CARD=")?.split_once(",DEV=")?;
        let device = identity::parse_number(device)?;
        let by_number = identity::parse_number(card)
            .and_then(|number| identity::attribute(Path::new(&format!("/proc/asound/card{number}/id"))));
        Some(Self { card: by_number.unwrap_or_else(|| card.to_owned()), device })
    }

    fn captures(&self, is_told_so: bool) -> bool {
        let card = Path::new("/proc/asound").join(&self.card);
        if card.is_dir() { card.join(format!("pcm{}c", self.device)).is_dir() } else { is_told_so }
    }

    fn describe(&self, name: &str) -> FoundDevice {
        let card = std::fs::read_link(Path::new("/proc/asound").join(&self.card)).unwrap_or_default();
        let number =
            card.to_str().and_then(|card| card.strip_prefix("card")).and_then(identity::parse_number);
        let control = number.map(|number| PathBuf::from(format!("/dev/snd/controlC{number}")));
        let link = |dir: &str| {
            let link = identity::link_to(Path::new(dir), control.as_deref()?)?;
            Some(link.to_string_lossy().into_owned())
        };
        FoundDevice {
            key: DeviceKey(format!("microphone:{},{}", self.card, self.device)),
            // The kernel's name for the device of every USB microphone says nothing.
            name: name.strip_suffix(", USB Audio").unwrap_or(name).to_owned(),
            media: MediaType::Audio,
            node: format!("hw:CARD={},DEV={}", self.card, self.device),
            bus: self.card.clone(),
            by_path: link("/dev/snd/by-path"),
            by_id: link("/dev/snd/by-id"),
            serial: number
                .and_then(|number| identity::serial(Path::new(&format!("/sys/class/sound/card{number}")))),
            formats: Vec::new(),
        }
    }
}

/// Steps in a chain of plugins have no description; whoever means a microphone gives it one.
fn is_defined_by_somebody(pcm: &str, name: &str) -> bool {
    !pcm.contains(':') && !BUILT_IN.contains(&pcm) && name != pcm
}

fn describe_defined(pcm: &str, name: &str) -> FoundDevice {
    FoundDevice {
        key: DeviceKey(format!("microphone:{pcm}")),
        name: name.to_owned(),
        media: MediaType::Audio,
        node: pcm.to_owned(),
        bus: pcm.to_owned(),
        by_path: None,
        by_id: None,
        serial: None,
        formats: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_name_is_parsed_or_refused() {
        let pcm = HardwarePcm::parse("hw:CARD=PCH,DEV=2").expect("a hardware name");
        assert_eq!((pcm.card.as_str(), pcm.device), ("PCH", 2));
        for other in ["plughw:CARD=PCH,DEV=0", "hw:CARD=PCH", "hw:0,0", "front:CARD=PCH,DEV=0", "vmic"] {
            assert!(HardwarePcm::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn built_in_plugins_are_no_microphones() {
        assert!(is_defined_by_somebody("vmic", "Desk"));
        assert!(!is_defined_by_somebody("vmic_slave", "vmic_slave"));
        for other in ["null", "default", "speex", "front:CARD=PCH,DEV=0"] {
            assert!(!is_defined_by_somebody(other, "Desk"), "{other}");
        }
    }
}
