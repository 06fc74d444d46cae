//! CTranslate2's model files (`model.bin`, binary version 6), the format of faster-whisper: an index of the variables, and
//! their values piece by piece. Called by `convert`.
//!
//! A file is the version, the name of the model's kind with its revision, and the number of variables; for each its name,
//! dimensions, type, size and values; then aliases, which are second names. A string is its length and bytes that end in
//! zero. All numbers are little-endian.

use half::{bf16, f16};
use std::{
    collections::HashMap,
    io::{self, BufReader, Read, Seek, SeekFrom},
};

/// The version of the format, which CTranslate2 has written since 2022.
const VERSION: u32 = 6;
/// What the file says it is.
const KIND: &str = "WhisperSpec";
/// The largest number of variables and aliases. Whisper's largest model has about 1100.
const MAX_VARIABLES: u32 = 20_000;
/// The longest name in bytes. Whisper's are below 64.
const MAX_NAME: u16 = 1024;
/// How many values are converted at once.
const PIECE: usize = 64 * 1024;

/// Why a folder of CTranslate2's can't be converted. Written for people.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("model.bin is not a model of CTranslate2: {0}")]
    Foreign(String),
    #[error("model.bin is in version {0} of CTranslate2's format; only {VERSION} can be read. Convert the model again")]
    Version(u32),
    #[error("model.bin ends too early, in {0}")]
    Short(String),
    #[error("model.bin is damaged: {0}")]
    Damaged(String),
    #[error(
        "{0} is stored as {1}, which can't be converted without loss. Use the model with 16-bit floats \
         (compute type float16)"
    )]
    Quantised(String, &'static str),
    #[error("model.bin has no {0}, which every Whisper model has")]
    Missing(String),
    #[error("{name} has the shape {found:?}, and should have {wanted:?}")]
    Shape { name: String, found: Vec<u32>, wanted: Vec<u32> },
    #[error("tokenizer.json can't be used: {0}")]
    Tokenizer(String),
    #[error("the model would not be usable: {0}")]
    Header(#[from] super::ggml::BadModel),
    #[error("it can't be read: {0}")]
    Read(io::Error),
    #[error("the converted model can't be written: {0}")]
    Write(io::Error),
}

/// The type of a variable's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F32,
    I8,
    I16,
    I32,
    F16,
    Bf16,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        [Self::F32, Self::I8, Self::I16, Self::I32, Self::F16, Self::Bf16].get(usize::from(number)).copied()
    }

    fn bytes(self) -> u64 {
        match self {
            Self::I8 => 1,
            Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
        }
    }
}

#[derive(Clone, Debug)]
struct Variable {
    offset: u64,
    dims: Vec<u32>,
    kind: Kind,
}

/// The variables of a file.
pub(super) struct Variables<R> {
    reader: BufReader<R>,
    all: HashMap<String, Variable>,
}

impl<R: Read + Seek> Variables<R> {
    /// Reads the index. The values stay in the file.
    pub(super) fn open(mut reader: R) -> Result<Self, ConvertError> {
        let length = super::ggml::length_of(&mut reader).map_err(ConvertError::Read)?;
        let mut from = BufReader::new(reader);
        let version = number(&mut from, "its header")?;
        if version != VERSION {
            // A file of another kind begins with any number.
            return Err(if version <= 64 {
                ConvertError::Version(version)
            } else {
                ConvertError::Foreign("its first bytes are not a version".to_owned())
            });
        }
        let kind = string(&mut from, "its header")?;
        if kind != KIND {
            return Err(ConvertError::Foreign(format!("it is a '{kind}' and not a '{KIND}'")));
        }
        let _revision = number(&mut from, "its header")?;
        let count = bounded(number(&mut from, "its header")?, "variables")?;
        let mut all = HashMap::new();
        for _ in 0..count {
            let name = string(&mut from, "the names of its variables")?;
            let variable = variable(&mut from, &name, length)?;
            all.insert(name, variable);
        }
        let aliases = bounded(number(&mut from, "its aliases")?, "aliases")?;
        for _ in 0..aliases {
            let (alias, name) = (string(&mut from, "its aliases")?, string(&mut from, "its aliases")?);
            let variable = all.get(&name).ok_or_else(|| ConvertError::Missing(name.clone()))?;
            all.insert(alias, variable.clone());
        }
        Ok(Self { reader: from, all })
    }

    /// The names of all variables.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }

    /// The shape of a variable.
    pub(super) fn shape(&self, name: &str) -> Result<&[u32], ConvertError> {
        Ok(&self.find(name)?.dims)
    }

    /// Checks that a variable has this shape.
    pub(super) fn expect(&self, name: &str, wanted: &[u32]) -> Result<(), ConvertError> {
        let found = self.shape(name)?;
        if found == wanted {
            return Ok(());
        }
        Err(ConvertError::Shape { name: name.to_owned(), found: found.to_vec(), wanted: wanted.to_vec() })
    }

    /// Reads a single whole number, if there is one of this name.
    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i32>, ConvertError> {
        let Some(variable) = self.all.get(name).cloned() else { return Ok(None) };
        if !variable.dims.is_empty() {
            return Err(ConvertError::Damaged(format!("{name} is not a single number")));
        }
        self.reader.seek(SeekFrom::Start(variable.offset)).map_err(ConvertError::Read)?;
        let mut bytes = [0; 4];
        let bytes_of = &mut bytes[..usize::try_from(variable.kind.bytes()).unwrap_or(4)];
        read(&mut self.reader, bytes_of, name)?;
        match variable.kind {
            Kind::I8 => Ok(Some(i32::from(bytes[0].cast_signed()))),
            Kind::I16 => Ok(Some(i32::from(i16::from_le_bytes([bytes[0], bytes[1]])))),
            Kind::I32 => Ok(Some(i32::from_le_bytes(bytes))),
            _ => Err(ConvertError::Damaged(format!("{name} is not a whole number"))),
        }
    }

    /// Passes rows of a variable (its outermost dimension) to `each` as little-endian floats, piece by piece: of 16 bits
    /// if `half`, or else of 32.
    pub(super) fn rows(
        &mut self,
        name: &str,
        rows: std::ops::Range<u32>,
        half: bool,
        mut each: impl FnMut(&[u8]) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let variable = self.find(name)?.clone();
        match variable.kind {
            Kind::F32 | Kind::F16 | Kind::Bf16 => {}
            Kind::I8 => return Err(ConvertError::Quantised(name.to_owned(), "8-bit numbers (int8)")),
            Kind::I16 => return Err(ConvertError::Quantised(name.to_owned(), "16-bit numbers (int16)")),
            Kind::I32 => return Err(ConvertError::Quantised(name.to_owned(), "32-bit numbers (int32)")),
        }
        let of_row: u64 = variable.dims.iter().skip(1).map(|n| u64::from(*n)).product();
        let size = variable.kind.bytes();
        let start = variable.offset + u64::from(rows.start) * of_row * size;
        let mut left = u64::from(rows.end - rows.start) * of_row;
        self.reader.seek(SeekFrom::Start(start)).map_err(ConvertError::Read)?;
        let mut source = vec![0; PIECE * usize::try_from(size).unwrap_or(4)];
        let mut converted = Vec::with_capacity(PIECE * 4);
        while left > 0 {
            let now = left.min(PIECE as u64);
            left -= now;
            let bytes = &mut source[..usize::try_from(now * size).unwrap_or(0)];
            read(&mut self.reader, bytes, name)?;
            if half && variable.kind == Kind::F16 {
                each(bytes)?;
                continue;
            }
            converted.clear();
            convert(bytes, variable.kind, half, &mut converted);
            each(&converted)?;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<&Variable, ConvertError> {
        self.all.get(name).ok_or_else(|| ConvertError::Missing(name.to_owned()))
    }
}

/// Converts little-endian floats of a type to those of 16 or 32 bits.
fn convert(bytes: &[u8], kind: Kind, half: bool, to: &mut Vec<u8>) {
    let mut add = |value: f32| {
        if half {
            to.extend(f16::from_f32(value).to_le_bytes());
        } else {
            to.extend(value.to_le_bytes());
        }
    };
    match kind {
        Kind::F32 => bytes.chunks_exact(4).for_each(|b| add(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        Kind::Bf16 => bytes.chunks_exact(2).for_each(|b| add(bf16::from_le_bytes([b[0], b[1]]).to_f32())),
        _ => bytes.chunks_exact(2).for_each(|b| add(f16::from_le_bytes([b[0], b[1]]).to_f32())),
    }
}

/// Reads the head of a variable and skips its values.
fn variable<R: Read + Seek>(from: &mut BufReader<R>, name: &str, length: u64) -> Result<Variable, ConvertError> {
    let [rank] = array(from, name)?;
    if rank > 4 {
        return Err(ConvertError::Damaged(format!("{name} has {rank} dimensions")));
    }
    let dims = (0..rank).map(|_| number(from, name)).collect::<Result<Vec<_>, _>>()?;
    let [kind] = array(from, name)?;
    let kind = Kind::of(kind).ok_or_else(|| ConvertError::Damaged(format!("{name} has the unknown type {kind}")))?;
    let bytes = u64::from(number(from, name)?);
    let wanted = dims.iter().map(|n| u64::from(*n)).try_fold(kind.bytes(), u64::checked_mul);
    if wanted != Some(bytes) {
        return Err(ConvertError::Damaged(format!("{name} has {bytes} bytes for the shape {dims:?}")));
    }
    let offset = from.stream_position().map_err(ConvertError::Read)?;
    if offset.checked_add(bytes).is_none_or(|end| end > length) {
        return Err(ConvertError::Short(name.to_owned()));
    }
    // Fits, because it is below 2^32.
    from.seek_relative(i64::from(u32::try_from(bytes).unwrap_or(u32::MAX))).map_err(ConvertError::Read)?;
    Ok(Variable { offset, dims, kind })
}

fn bounded(count: u32, what: &str) -> Result<u32, ConvertError> {
    if count > MAX_VARIABLES {
        return Err(ConvertError::Damaged(format!("it has {count} {what}, and at most {MAX_VARIABLES} are possible")));
    }
    Ok(count)
}

fn number(from: &mut impl Read, place: &str) -> Result<u32, ConvertError> {
    array(from, place).map(u32::from_le_bytes)
}

fn string(from: &mut impl Read, place: &str) -> Result<String, ConvertError> {
    let length = u16::from_le_bytes(array(from, place)?);
    if length > MAX_NAME {
        return Err(ConvertError::Damaged(format!("a name of {length} bytes")));
    }
    let mut bytes = vec![0; usize::from(length)];
    read(from, &mut bytes, place)?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| ConvertError::Damaged("a name that is not text".to_owned()))
}

fn array<const N: usize>(from: &mut impl Read, place: &str) -> Result<[u8; N], ConvertError> {
    let mut bytes = [0; N];
    read(from, &mut bytes, place)?;
    Ok(bytes)
}

fn read(from: &mut impl Read, bytes: &mut [u8], place: &str) -> Result<(), ConvertError> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ConvertError::Short(place.to_owned()),
        _ => ConvertError::Read(error),
    })
}
