//! whisper.cpp's model files (ggml format): reading the header, checking that a file is whole, and writing what comes
//! before the tensors. Called by `models`, by `convert`, and by the `whisper` engine before it starts.
//!
//! A file is a magic number, eleven numbers about the model, the mel filters, the tokens, and then tensors to its end.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// `ggml` as a little-endian number.
const MAGIC: u32 = 0x6767_6d6c;
/// The number of tokens from which a model knows more than English; an English one has 51864.
const MULTILINGUAL: i32 = 51_865;
/// The largest number of tensors. Whisper's largest model has 1259.
const MAX_TENSORS: usize = 10_000;
/// The longest name of a tensor and the longest token, in bytes. Whisper's are below 64.
const MAX_NAME: u32 = 1024;

/// Why a file isn't a usable model. Written for people, as the end of a sentence about the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadModel {
    #[error("it is not a model in whisper.cpp's format (its first bytes are {0})")]
    Magic(String),
    #[error("its header is not that of a Whisper model: {0}")]
    Header(String),
    #[error("it ends too early, in {0}")]
    Short(&'static str),
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it can't be read: {0}")]
    Unreadable(String),
}

/// The numbers at the start of a model file, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub vocabulary: i32,
    pub audio_context: i32,
    pub audio_width: i32,
    pub audio_heads: i32,
    pub audio_layers: i32,
    pub text_context: i32,
    pub text_width: i32,
    pub text_heads: i32,
    pub text_layers: i32,
    pub mels: i32,
    /// The type of most tensors: 1 for 16-bit floats; quantised files have others, with a format version in thousands.
    pub file_type: i32,
}

impl Header {
    /// Whether the model knows other languages than English.
    #[must_use]
    pub fn multilingual(&self) -> bool {
        self.vocabulary >= MULTILINGUAL
    }

    /// Reads the magic number and the header.
    ///
    /// # Errors
    /// If they aren't those of a Whisper model.
    pub fn read(from: &mut impl Read) -> Result<Self, BadModel> {
        let mut magic = [0; 4];
        from.read_exact(&mut magic).map_err(ended("its first bytes"))?;
        if u32::from_le_bytes(magic) != MAGIC {
            return Err(BadModel::Magic(magic.escape_ascii().to_string()));
        }
        let mut numbers = [0; 11];
        for number in &mut numbers {
            *number = u32_of(from, "its header")?.cast_signed();
        }
        let [vocabulary, audio_context, audio_width, audio_heads, audio_layers, ..] = numbers;
        let [.., text_context, text_width, text_heads, text_layers, mels, file_type] = numbers;
        let header = Self {
            vocabulary,
            audio_context,
            audio_width,
            audio_heads,
            audio_layers,
            text_context,
            text_width,
            text_heads,
            text_layers,
            mels,
            file_type,
        };
        header.check()?;
        Ok(header)
    }

    /// Checks that the numbers are possible, so that the engine's library doesn't allocate what a damaged file asks for.
    ///
    /// # Errors
    /// If one isn't.
    pub fn check(&self) -> Result<(), BadModel> {
        // The largest Whisper model has 51866 tokens, a width of 1280, 20 heads and 32 layers.
        for (what, value, range) in [
            ("tokens", self.vocabulary, 1000..=200_000),
            ("audio positions", self.audio_context, 1..=10_000),
            ("text positions", self.text_context, 1..=10_000),
            ("values in an audio state", self.audio_width, 1..=8192),
            ("values in a text state", self.text_width, 1..=8192),
            ("audio layers", self.audio_layers, 1..=256),
            ("text layers", self.text_layers, 1..=256),
            ("mel bands", self.mels, 1..=512),
            ("as the type of its tensors", self.file_type, 0..=99_999),
        ] {
            if !range.contains(&value) {
                return Err(BadModel::Header(format!("{value} {what}")));
            }
        }
        for (heads, width) in [(self.audio_heads, self.audio_width), (self.text_heads, self.text_width)] {
            if heads < 1 || width % heads != 0 {
                return Err(BadModel::Header(format!("{heads} heads for {width} values")));
            }
        }
        Ok(())
    }

    /// Writes the magic number and the header.
    ///
    /// # Errors
    /// If `to` can't be written.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&MAGIC.to_le_bytes())?;
        for number in [
            self.vocabulary,
            self.audio_context,
            self.audio_width,
            self.audio_heads,
            self.audio_layers,
            self.text_context,
            self.text_width,
            self.text_heads,
            self.text_layers,
            self.mels,
            self.file_type,
        ] {
            to.write_all(&number.to_le_bytes())?;
        }
        Ok(())
    }
}

/// Checks a whole file: its header, and that its tensors end where it ends. Reads only what stands between the tensors'
/// values, so it takes milliseconds.
///
/// # Errors
/// If the file can't be read, isn't a model, or isn't whole.
pub fn check(path: &Path) -> Result<Header, BadModel> {
    let file = File::open(path).map_err(|e| BadModel::Unreadable(e.to_string()))?;
    let length = file.metadata().map_err(|e| BadModel::Unreadable(e.to_string()))?.len();
    check_reader(&mut BufReader::new(file), length)
}

/// Does what [`check`] does, for a reader at its start with this length in bytes.
///
/// # Errors
/// If it isn't a model, or isn't whole.
pub fn check_reader<R: Read + Seek>(from: &mut BufReader<R>, length: u64) -> Result<Header, BadModel> {
    let header = Header::read(from)?;
    let (mels, bins) = (u32_of(from, "its mel filters")?, u32_of(from, "its mel filters")?);
    if mels.cast_signed() != header.mels || !(1..=4096).contains(&bins) {
        return Err(BadModel::Damaged(format!("{mels} mel filters of {bins} values")));
    }
    skip(from, u64::from(mels) * u64::from(bins) * 4, length, "its mel filters")?;
    let tokens = u32_of(from, "its tokens")?;
    if tokens == 0 || tokens > header.vocabulary.cast_unsigned() {
        return Err(BadModel::Damaged(format!("{tokens} tokens of {}", header.vocabulary)));
    }
    for _ in 0..tokens {
        let bytes = u32_of(from, "its tokens")?;
        if bytes > MAX_NAME {
            return Err(BadModel::Damaged(format!("a token of {bytes} bytes")));
        }
        skip(from, u64::from(bytes), length, "its tokens")?;
    }
    let mut tensors = 0;
    while !at_end(from)? {
        tensors += 1;
        if tensors > MAX_TENSORS {
            return Err(BadModel::Damaged(format!("more than {MAX_TENSORS} tensors")));
        }
        skip_tensor(from, length)?;
    }
    if tensors == 0 {
        return Err(BadModel::Short("its tensors"));
    }
    Ok(header)
}

fn skip_tensor<R: Read + Seek>(from: &mut BufReader<R>, length: u64) -> Result<(), BadModel> {
    const WHERE: &str = "its tensors";
    let (rank, name, kind) = (u32_of(from, WHERE)?, u32_of(from, WHERE)?, u32_of(from, WHERE)?);
    if !(1..=4).contains(&rank) || !(1..=MAX_NAME).contains(&name) {
        return Err(BadModel::Damaged(format!("a tensor with {rank} dimensions and a name of {name} bytes")));
    }
    let mut elements: u64 = 1;
    for _ in 0..rank {
        elements = elements.saturating_mul(u64::from(u32_of(from, WHERE)?));
    }
    let (block, bytes) =
        block(kind).ok_or_else(|| BadModel::Damaged(format!("a tensor of the unknown type {kind}")))?;
    if elements == 0 || !elements.is_multiple_of(block) {
        return Err(BadModel::Damaged(format!("a tensor of {elements} values")));
    }
    skip(from, u64::from(name), length, WHERE)?;
    skip(from, (elements / block).saturating_mul(bytes), length, WHERE)
}

/// How many values one block of a tensor's type holds, and its bytes.
fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 => (1, 4),
        // f16 and bf16.
        1 | 30 => (1, 2),
        // q4_0 to q8_0.
        2 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        // q2_K to q6_K.
        10 => (256, 84),
        11 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        _ => return None,
    })
}

fn at_end<R: Read>(from: &mut BufReader<R>) -> Result<bool, BadModel> {
    use io::BufRead;
    from.fill_buf().map(<[u8]>::is_empty).map_err(|e| BadModel::Unreadable(e.to_string()))
}

/// Skips bytes that must exist.
fn skip<R: Read + Seek>(from: &mut BufReader<R>, bytes: u64, length: u64, place: &'static str) -> Result<(), BadModel> {
    let unreadable = |e: io::Error| BadModel::Unreadable(e.to_string());
    let position = from.stream_position().map_err(unreadable)?;
    let rest = length.saturating_sub(position);
    match i64::try_from(bytes) {
        Ok(distance) if bytes <= rest => from.seek_relative(distance).map_err(unreadable),
        _ => Err(BadModel::Short(place)),
    }
}

fn u32_of(from: &mut impl Read, place: &'static str) -> Result<u32, BadModel> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes).map_err(ended(place))?;
    Ok(u32::from_le_bytes(bytes))
}

fn ended(place: &'static str) -> impl FnOnce(io::Error) -> BadModel {
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BadModel::Short(place),
        _ => BadModel::Unreadable(error.to_string()),
    }
}

/// Returns the length of what is left in a reader, which is then at its start again.
///
/// # Errors
/// If it can't be sought in.
pub(super) fn length_of(reader: &mut impl Seek) -> io::Result<u64> {
    let length = reader.seek(SeekFrom::End(0))?;
    reader.seek(SeekFrom::Start(0))?;
    Ok(length)
}
