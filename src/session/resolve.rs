//! From a source to its device: by the id it names, the host's aliases, the name a person sees, or
//! because there is only one. Several candidates are an error that lists them, never a guess.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::device::{Address, DeviceKey, DeviceSpec, FaultOrder, FormatWish, FoundDevice, MediaType};
use super::spec::{SourceSpec, StartOptions};

/// Devices that an error lists.
const LISTED_MAX: usize = 16;

/// A device that the host's config names: a real one by what it is known by, or a virtual one.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfiguredDevice {
    /// Stable id, for a source's `deviceId`.
    pub id: String,
    /// What a person calls it; if empty the driver's name for it, or a virtual device's id.
    pub name: String,
    /// What it delivers.
    pub media: MediaType,
    /// What it is.
    pub place: Place,
    /// The format asked for.
    pub wish: FormatWish,
}

/// Where a configured device is.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A camera or microphone of the host, found by every trait that is given.
    Real(Traits),
    /// Generated here.
    Synthetic(Vec<FaultOrder>),
    /// A file that is played.
    Replay {
        /// Path of the file.
        path: String,
        /// Start again at the end.
        again: bool,
    },
    /// A FIFO or descriptor that is read.
    Pipe(String),
}

/// What a real device is known by; what is absent doesn't matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// The driver's name for it.
    pub name: Option<String>,
    /// Its node, or the PCM's name. Not stable over reboots.
    pub node: Option<String>,
    /// Its link below `by-path`, or its bus position.
    pub by_path: Option<String>,
    /// Its link below `by-id`.
    pub by_id: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
}

/// A source's device can't be told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// Nothing fits.
    #[error("source {source_id} ({wanted}): no such {media} device on this host; there is {there}")]
    Missing {
        /// The source.
        source_id: String,
        /// What it asked for.
        wanted: String,
        /// What it should deliver.
        media: MediaType,
        /// What there is.
        there: String,
    },
    /// Several fit.
    #[error(
        "source {source_id} ({wanted}) is ambiguous: {candidates} fit; name one by deviceId or give it an alias in [[devices]]"
    )]
    Ambiguous {
        /// The source.
        source_id: String,
        /// What it asked for.
        wanted: String,
        /// What fits.
        candidates: String,
    },
    /// Two sources of the session mean the same device.
    #[error("sources {first} and {second} are both {device}: a device can be captured once")]
    Twice {
        /// One source.
        first: String,
        /// The other.
        second: String,
        /// The device.
        device: String,
    },
}

/// A device with every name it has on this host.
struct Candidate<'a> {
    /// What the config calls it: ids and names.
    aliases: Vec<String>,
    /// What the config says of this device of the host, an entry for each of its names.
    entries: Vec<&'a ConfiguredDevice>,
    /// What tells it from others: for a source's `deviceId`.
    ids: Vec<String>,
    /// What its driver calls it.
    name: Option<String>,
    spec: DeviceSpec,
}

/// Finds the device of each source; `found` is what the host has now.
///
/// # Errors
/// The first source whose device is missing or ambiguous, or that shares one.
pub fn resolve(
    sources: &[SourceSpec],
    options: &StartOptions,
    configured: &[ConfiguredDevice],
    found: &[FoundDevice],
) -> Result<Vec<DeviceSpec>, ResolveError> {
    let mut devices: Vec<DeviceSpec> = Vec::new();
    for source in sources {
        let candidates = candidates(source.media, configured, found);
        let fitting = match &source.device_id {
            Some(id) => candidates.iter().filter(|it| it.ids.contains(id)).collect(),
            None => by_name(source, configured, &candidates),
        };
        let mut device = the_only(source, &fitting, &candidates)?.as_named_by(source);
        for (_, wish) in options.formats.iter().filter(|(id, _)| *id == source.id) {
            device.wish = overlay(&device.wish, wish);
        }
        if let Some(at) = devices.iter().position(|other| other.key == device.key) {
            return Err(ResolveError::Twice {
                first: sources[at].id.clone(),
                second: source.id.clone(),
                device: device.label,
            });
        }
        devices.push(device);
    }
    Ok(devices)
}

/// Every source names a virtual device of the config by its id, so that the host needn't be searched.
pub fn needs_no_search(sources: &[SourceSpec], configured: &[ConfiguredDevice]) -> bool {
    sources.iter().all(|source| {
        configured.iter().any(|device| {
            let named = source.device_id.as_deref() == Some(&device.id);
            named && device.media == source.media && !matches!(device.place, Place::Real(_))
        })
    })
}

/// What a source without a `deviceId` can mean, the most deliberate name first: the config's, even if
/// that device isn't there now; the hardware's; the driver's. A name that nobody knows means any device.
fn by_name<'a>(
    source: &SourceSpec,
    configured: &[ConfiguredDevice],
    candidates: &'a [Candidate<'a>],
) -> Vec<&'a Candidate<'a>> {
    let name = &source.name;
    let is_alias = |it: &ConfiguredDevice| it.media == source.media && (it.id == *name || it.name == *name);
    if name.is_empty() {
        return candidates.iter().collect();
    }
    if configured.iter().any(is_alias) {
        return candidates.iter().filter(|it| it.aliases.contains(name)).collect();
    }
    if candidates.iter().any(|it| it.ids.contains(name)) {
        return candidates.iter().filter(|it| it.ids.contains(name)).collect();
    }
    if candidates.iter().any(|it| it.name.as_ref() == Some(name)) {
        return candidates.iter().filter(|it| it.name.as_ref() == Some(name)).collect();
    }
    candidates.iter().collect()
}

fn the_only<'a>(
    source: &SourceSpec,
    fitting: &[&'a Candidate<'a>],
    candidates: &[Candidate<'_>],
) -> Result<&'a Candidate<'a>, ResolveError> {
    let list = |of: &[&Candidate<'_>]| -> String {
        let mut names: Vec<_> =
            of.iter().map(|it| format!("{:?} ({})", it.spec.label, it.spec.key)).collect();
        names.sort();
        names.truncate(LISTED_MAX);
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let wanted = source.device_id.clone().unwrap_or_else(|| source.name.clone());
    match fitting {
        [one] => Ok(one),
        [] => Err(ResolveError::Missing {
            source_id: source.id.clone(),
            wanted,
            media: source.media,
            there: list(&candidates.iter().collect::<Vec<_>>()),
        }),
        several => {
            Err(ResolveError::Ambiguous { source_id: source.id.clone(), wanted, candidates: list(several) })
        }
    }
}

/// Every device of `media`, once each: a configured one stands for the found one that it names.
fn candidates<'a>(
    media: MediaType,
    configured: &'a [ConfiguredDevice],
    found: &[FoundDevice],
) -> Vec<Candidate<'a>> {
    let mut all: Vec<Candidate<'a>> =
        found.iter().filter(|it| it.media == media).map(Candidate::found).collect();
    for device in configured.iter().filter(|device| device.media == media) {
        let Place::Real(traits) = &device.place else {
            all.push(Candidate::virtual_device(device));
            continue;
        };
        for known in found.iter().filter(|it| it.media == media && traits.fit(it)) {
            let same = all.iter_mut().find(|it| it.spec.key == known.key);
            let candidate = same.expect("every found device of this kind is a candidate");
            candidate.ids.push(device.id.clone());
            candidate.aliases.push(device.id.clone());
            if !device.name.is_empty() {
                candidate.aliases.push(device.name.clone());
            }
            candidate.entries.push(device);
            say(&mut candidate.spec, device);
        }
    }
    all
}

impl ConfiguredDevice {
    /// What a lease of a virtual device is held on; a real one has its key from the search. What is read
    /// from a pipe is gone for every other reader: two names of one pipe are one device.
    pub fn virtual_key(&self) -> Option<DeviceKey> {
        match &self.place {
            Place::Real(_) => None,
            Place::Synthetic(_) | Place::Replay { .. } => Some(DeviceKey(format!("virtual:{}", self.id))),
            Place::Pipe(path) => {
                let path: PathBuf = Path::new(path).components().collect();
                Some(DeviceKey(format!("pipe:{}", path.display())))
            }
        }
    }
}

/// What an entry of the config says of a device of the host.
fn say(spec: &mut DeviceSpec, entry: &ConfiguredDevice) {
    if !entry.name.is_empty() {
        spec.label.clone_from(&entry.name);
    }
    spec.wish = overlay(&spec.wish, &entry.wish);
}

impl Candidate<'_> {
    /// The device as the entry has it whose id or name the source uses; as all of its entries have it, the last
    /// one first, if the source means it otherwise.
    fn as_named_by(&self, source: &SourceSpec) -> DeviceSpec {
        let mut spec = self.spec.clone();
        let is_used = |entry: &&&ConfiguredDevice| match &source.device_id {
            Some(id) => entry.id == *id,
            None => entry.id == source.name || entry.name == source.name,
        };
        if let Some(entry) = self.entries.iter().find(is_used) {
            spec.wish = FormatWish::default();
            say(&mut spec, entry);
        }
        spec
    }

    fn found(device: &FoundDevice) -> Self {
        let address = match device.media {
            MediaType::Video => Address::Camera {
                node: device.node.clone(),
                bus: device.bus.clone(),
                by_id: device.serial.as_ref().and(device.by_id.clone()),
            },
            MediaType::Audio => Address::Microphone { pcm: device.node.clone() },
        };
        let mut ids = vec![device.key.0.clone()];
        ids.extend(device.by_path.clone());
        ids.extend(device.by_id.clone());
        ids.extend(device.serial.clone());
        ids.push(device.node.clone());
        Self {
            aliases: Vec::new(),
            entries: Vec::new(),
            ids,
            name: Some(device.name.clone()),
            spec: DeviceSpec {
                key: device.key.clone(),
                label: device.name.clone(),
                media: device.media,
                address,
                wish: FormatWish::default(),
            },
        }
    }

    fn virtual_device(device: &ConfiguredDevice) -> Self {
        let label = if device.name.is_empty() { &device.id } else { &device.name };
        let address = match &device.place {
            Place::Synthetic(faults) => Address::Synthetic { faults: faults.clone() },
            Place::Replay { path, again } => Address::Replay { path: path.clone(), again: *again },
            Place::Pipe(path) => Address::Pipe { path: path.clone() },
            Place::Real(_) => unreachable!("real devices are candidates once they are found"),
        };
        let key = device.virtual_key().expect("real devices are candidates once they are found");
        Self {
            aliases: vec![device.id.clone(), label.clone()],
            entries: Vec::new(),
            ids: vec![device.id.clone(), key.0.clone()],
            name: None,
            spec: DeviceSpec {
                key,
                label: label.clone(),
                media: device.media,
                address,
                wish: device.wish.clone(),
            },
        }
    }
}

impl Traits {
    /// Whether every trait that is given is the device's.
    pub fn fit(&self, device: &FoundDevice) -> bool {
        let same = |wanted: &Option<String>, has: &[Option<&str>]| {
            wanted.as_deref().is_none_or(|wanted| has.contains(&Some(wanted)))
        };
        let file_name = |path: &Option<String>| {
            path.as_deref().and_then(|path| path.rsplit('/').next()).map(str::to_owned)
        };
        let (path_name, id_name) = (file_name(&device.by_path), file_name(&device.by_id));
        same(&self.name, &[Some(&device.name)])
            && same(&self.node, &[Some(&device.node)])
            && same(&self.by_path, &[device.by_path.as_deref(), path_name.as_deref(), Some(&device.bus)])
            && same(&self.by_id, &[device.by_id.as_deref(), id_name.as_deref()])
            && same(&self.serial, &[device.serial.as_deref()])
    }
}

/// `wish`, and where it says nothing, `base`.
fn overlay(base: &FormatWish, wish: &FormatWish) -> FormatWish {
    FormatWish {
        width: wish.width.or(base.width),
        height: wish.height.or(base.height),
        frame_rate: wish.frame_rate.or(base.frame_rate),
        pixel_format: wish.pixel_format.clone().or_else(|| base.pixel_format.clone()),
        sample_rate: wish.sample_rate.or(base.sample_rate),
        channels: wish.channels.or(base.channels),
    }
}
