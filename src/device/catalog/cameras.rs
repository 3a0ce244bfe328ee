//! Cameras: V4L2 capture nodes, named by nokhwa and the driver, identified by udev and sysfs.
//! Must never change a device's format or take a buffer.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nokhwa::utils::ApiBackend;
use v4l::capability::{Capabilities, Flags};

use super::identity;
use crate::device::DeviceError;
use crate::device::camera::guarded;
use crate::device::camera::modes::Offer;
use crate::session::device::{DeviceKey, FormatWish, FoundDevice, MediaType};

/// What opening a node told.
pub(super) struct Asked {
    known: Capabilities,
    formats: Vec<String>,
}

/// A node that may be a camera.
pub struct Node {
    number: u32,
    /// Its path.
    pub path: PathBuf,
    /// The name that nokhwa finds.
    name: Option<String>,
}

/// The nodes of this host by their number; none has been opened.
///
/// # Errors
/// `/dev` can't be read.
pub fn unasked() -> Result<Vec<Node>, DeviceError> {
    let nodes = nodes().map_err(|source| DeviceError::Failed {
        device: "/dev".to_owned(),
        doing: "listing the cameras",
        source,
    })?;
    let mut names = names_by_nokhwa(&nodes);
    let node = |(number, path)| Node { number, path, name: names.remove(&number) };
    Ok(nodes.video.into_iter().map(node).collect())
}

/// What `/dev` holds of V4L2.
struct Nodes {
    video: BTreeMap<u32, PathBuf>,
    /// A name that begins with `video` but holds no number, which nokhwa's search panics over.
    has_odd_names: bool,
}

fn nodes() -> io::Result<Nodes> {
    let mut nodes = Nodes { video: BTreeMap::new(), has_odd_names: false };
    for entry in fs::read_dir("/dev")? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            nodes.has_odd_names = true;
            continue;
        };
        let Some(rest) = name.strip_prefix("video") else { continue };
        match identity::parse_number(rest) {
            Some(number) => drop(nodes.video.insert(number, path)),
            None => nodes.has_odd_names |= !rest.bytes().any(|c| c.is_ascii_digit()),
        }
    }
    Ok(nodes)
}

/// The names that nokhwa finds, by node number.
fn names_by_nokhwa(nodes: &Nodes) -> BTreeMap<u32, String> {
    if nodes.has_odd_names || nodes.video.is_empty() {
        return BTreeMap::new();
    }
    let found = catch_unwind(|| nokhwa::query(ApiBackend::Video4Linux));
    let named =
        |camera: nokhwa::utils::CameraInfo| Some((camera.index().as_index().ok()?, camera.human_name()));
    match found {
        Ok(Ok(cameras)) => cameras.into_iter().filter_map(named).collect(),
        Ok(Err(_)) | Err(_) => BTreeMap::new(),
    }
}

impl Node {
    /// The camera as its driver tells it, or as it is known when it can't be opened.
    pub fn ask(&self) -> Option<FoundDevice> {
        self.describe(ask(&self.path))
    }

    /// The camera at this node; `None` for nodes that give no pictures.
    pub(super) fn describe(&self, asked: Option<Asked>) -> Option<FoundDevice> {
        let node = &self.path;
        let class_entry = PathBuf::from(format!("/sys/class/video4linux/video{}", self.number));
        let order =
            identity::attribute(&class_entry.join("index")).and_then(|order| identity::parse_number(&order));
        let gives_pictures = match &asked {
            Some(asked) => asked.known.capabilities.contains(Flags::VIDEO_CAPTURE | Flags::STREAMING),
            None => seems_to_give_pictures(node, order),
        };
        if !gives_pictures {
            return None;
        }
        let known = asked.as_ref().map(|asked| &asked.known);
        let path = node.to_string_lossy().into_owned();
        let bus = identity::id_path(node).or_else(|| known.map(|known| known.bus.clone()));
        let bus = bus.unwrap_or_default();
        let card = known.map(|known| known.card.as_str()).or(self.name.as_deref());
        let link = |dir: &str| {
            identity::link_to(Path::new(dir), node).map(|link| link.to_string_lossy().into_owned())
        };
        Some(FoundDevice {
            key: key(&bus, &path, order),
            name: identity::human_name(card.unwrap_or(&path)).to_owned(),
            media: MediaType::Video,
            by_path: link("/dev/v4l/by-path"),
            by_id: link("/dev/v4l/by-id"),
            serial: identity::serial(&class_entry),
            formats: asked.map(|asked| asked.formats).unwrap_or_default(),
            node: path,
            bus,
        })
    }
}

/// The one camera with this key, else the one with this link. What udev knows is enough for most; a node
/// without an identity there is asked.
pub(super) fn find(nodes: &[Node], key: &DeviceKey, by_id: Option<&str>) -> Option<FoundDevice> {
    let known: Vec<FoundDevice> = nodes
        .iter()
        .filter_map(|node| node.describe(None).filter(|found| !found.bus.is_empty()).or_else(|| node.ask()))
        .collect();
    pick(&known, key, by_id).cloned()
}

fn pick<'a>(known: &'a [FoundDevice], key: &DeviceKey, by_id: Option<&str>) -> Option<&'a FoundDevice> {
    let only = |is_meant: &dyn Fn(&&FoundDevice) -> bool| {
        let mut meant = known.iter().filter(is_meant);
        meant.next().filter(|_| meant.next().is_none())
    };
    only(&|found| found.key == *key).or_else(|| {
        only(&|found| by_id.is_some() && found.serial.is_some() && found.by_id.as_deref() == by_id)
    })
}

/// One function of a device can have several nodes, which sysfs counts.
fn key(bus: &str, node: &str, order: Option<u32>) -> DeviceKey {
    let place = if bus.is_empty() { node } else { bus };
    DeviceKey(match order.unwrap_or(0) {
        0 => format!("camera:{place}"),
        order => format!("camera:{place}#{order}"),
    })
}

fn ask(node: &Path) -> Option<Asked> {
    guarded(|| {
        let device = v4l::Device::with_path(node)?;
        let known = device.query_caps()?;
        let offer = Offer::of(&device, &FormatWish::default());
        Ok(Asked { known, formats: offer.map(|offer| offer.lines()).unwrap_or_default() })
    })
    .ok()
}

/// For a node that can't be opened: udev recorded what it can, else the first node of a function is
/// the one with the pictures.
fn seems_to_give_pictures(node: &Path, order: Option<u32>) -> bool {
    let recorded = identity::udev_properties(node).and_then(|mut known| known.remove("ID_V4L_CAPABILITIES"));
    recorded.map_or(order.unwrap_or(0) == 0, |able| able.contains(":capture:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(node: &str, bus: &str, by_id: Option<&str>) -> FoundDevice {
        FoundDevice {
            key: key(bus, node, None),
            name: "Webcam".to_owned(),
            media: MediaType::Video,
            node: node.to_owned(),
            bus: bus.to_owned(),
            by_path: None,
            by_id: by_id.map(str::to_owned),
            serial: by_id.map(str::to_owned),
            formats: Vec::new(),
        }
    }

    #[test]
    fn a_camera_is_found_by_its_place_then_by_its_serial_and_never_by_chance() {
        let known = [
            found("/dev/video4", "usb-1", None),
            found("/dev/video5", "usb-2", Some("SN2")),
            found("/dev/video6", "usb-3", Some("SN3")),
            found("/dev/video7", "usb-4", Some("SN3")),
        ];
        let node = |place: &str, by_id| {
            pick(&known, &DeviceKey(format!("camera:{place}")), by_id).map(|found| found.node.as_str())
        };
        assert_eq!(node("usb-1", None), Some("/dev/video4"));
        assert_eq!(node("usb-1", Some("SN2")), Some("/dev/video4"));
        assert_eq!(node("usb-9", Some("SN2")), Some("/dev/video5"));
        assert_eq!(node("usb-9", Some("SN3")), None, "two have it");
        assert_eq!(node("usb-9", None), None, "one without a serial number is no other");
    }

    #[test]
    fn a_key_is_the_place_and_tells_nodes_of_one_place_apart() {
        assert_eq!(key("usb-1", "/dev/video0", Some(0)).0, "camera:usb-1");
        assert_eq!(key("usb-1", "/dev/video2", Some(2)).0, "camera:usb-1#2");
        assert_eq!(key("", "/dev/video2", None).0, "camera:/dev/video2");
    }
}
