//! Which hardware a device node is: what sysfs and udev say, without libudev.
//! Must never open a device node: it has to work for devices that are busy, forbidden or hung.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// Steps up in sysfs from a device to the USB device that carries its serial number.
const PARENTS_MAX: usize = 4;
/// Where udev keeps what it knows, one file a device (`systemd`'s `device-private.c`).
const UDEV_DIR: &str = "/run/udev/data";

/// The number N of a node that is, or links to, `/dev/videoN`.
pub fn video_number(node: &Path) -> Option<u32> {
    let real = fs::canonicalize(node).ok()?;
    let name = real.strip_prefix("/dev").ok()?.to_str()?;
    name.strip_prefix("video").and_then(parse_number)
}

/// A number written in digits only.
pub fn parse_number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// What udev recorded about a character device; `None` as long as it has not seen it.
pub fn udev_properties(node: &Path) -> Option<BTreeMap<String, String>> {
    let number = fs::metadata(node).ok()?.rdev();
    let file = Path::new(UDEV_DIR).join(format!("c{}:{}", major(number), minor(number)));
    fs::read_to_string(file).ok().map(|text| parse_udev(&text))
}

/// Whether udev, where it runs at all, has finished with this node: before that a device that was
/// just plugged in has no identity yet.
pub fn is_settled(node: &Path) -> bool {
    !Path::new(UDEV_DIR).is_dir() || udev_properties(node).is_some()
}

/// The bus position of a camera node as udev names it (`ID_PATH`).
pub fn id_path(node: &Path) -> Option<String> {
    if let Some(path) = udev_properties(node).and_then(|mut known| known.remove("ID_PATH")) {
        return Some(path);
    }
    let link = link_to(Path::new("/dev/v4l/by-path"), node)?;
    let name = link.file_name()?.to_str()?;
    name.rsplit_once("-video-index").map(|(path, _)| path.to_owned())
}

/// The link in `dir` that leads to `node`; the first by name where there are several.
pub fn link_to(dir: &Path, node: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(node).ok()?;
    let mut links: Vec<PathBuf> = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|link| fs::canonicalize(link).is_ok_and(|end| end == real))
        .collect();
    // Newer udev adds a second link that names the USB version, which a hub can change.
    links.sort_by_key(|link| (link.to_string_lossy().contains("-usbv"), link.clone()));
    links.into_iter().next()
}

/// The serial number of the USB device behind a sysfs class entry such as
/// `/sys/class/video4linux/video0` or `/sys/class/sound/card1`.
pub fn serial(class_entry: &Path) -> Option<String> {
    let device = fs::canonicalize(class_entry.join("device")).ok()?;
    let usb = device.ancestors().take(PARENTS_MAX).find(|dir| dir.join("idVendor").exists())?;
    attribute(&usb.join("serial"))
}

/// The trimmed content of a sysfs attribute; `None` when it is absent or empty.
pub fn attribute(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The name that people see for a V4L2 card: UVC repeats the product's name after a colon, cut to
/// 31 bytes (`Integrated Webcam: Integrated W`).
pub fn human_name(card: &str) -> &str {
    let card = card.trim();
    match card.split_once(": ") {
        Some((name, rest)) if name.starts_with(rest.trim()) => name.trim(),
        _ => card.trim_end_matches(':'),
    }
}

fn parse_udev(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("E:")?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_card_name_is_shown_once() {
        assert_eq!(human_name("Integrated Webcam: Integrated W"), "Integrated Webcam");
        assert_eq!(human_name("HD Pro Webcam C920"), "HD Pro Webcam C920");
        assert_eq!(human_name("UVC Camera (046d:0825)"), "UVC Camera (046d:0825)");
        assert_eq!(human_name("Cam Link: Left eye"), "Cam Link: Left eye");
        assert_eq!(human_name("USB2.0 Camera:"), "USB2.0 Camera");
    }

    #[test]
    fn only_digits_are_a_number() {
        assert_eq!(parse_number("12"), Some(12));
        for other in ["", "-cam", "1a", "+1", "99999999999"] {
            assert_eq!(parse_number(other), None, "{other:?}");
        }
    }

    #[test]
    fn udev_properties_are_read_from_its_records() {
        let known = parse_udev(
            "S:v4l/by-id/x\nI:123\nE:ID_PATH=pci-0000:00:14.0-usb-0:1:1.0\nE:ID_SERIAL=a=b\nG:uaccess\n",
        );
        assert_eq!(known.get("ID_PATH").map(String::as_str), Some("pci-0000:00:14.0-usb-0:1:1.0"));
        assert_eq!(known.get("ID_SERIAL").map(String::as_str), Some("a=b"));
        assert_eq!(known.len(), 2);
    }
}
