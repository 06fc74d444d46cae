//! Converts a Whisper model from CTranslate2's format, which Python packages and faster-whisper use, to whisper.cpp's with
//! 16-bit floats. Reads and writes piece by piece, so that memory stays small however large the model is. Called by
//! `library`.

use super::{
    ctranslate2::{ConvertError, Variables},
    ggml::Header,
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    io::{Read, Seek, Write},
};

/// The largest tokenizer.json in bytes. Whisper's are about 2 MB.
pub(super) const MAX_TOKENIZER: u64 = 32 * 1024 * 1024;
/// The number of tokens in an English model.
const ENGLISH: u32 = 51_864;
/// The width of an attention head in every model of OpenAI's, for files that don't say how many heads there are.
const HEAD_WIDTH: u32 = 64;
/// The rate and the window that Whisper's mel filters are made for, in Hz and in samples.
const RATE: f64 = 16_000.0;
const WINDOW: u32 = 400;

/// Writes to `to` the model that `model` (a model.bin) and `tokenizer` (its tokenizer.json) contain. Returns its header.
///
/// # Errors
/// If they aren't a Whisper model with floats, or reading or writing fails.
pub fn convert<R: Read + Seek, W: Write>(model: R, tokenizer: &[u8], to: &mut W) -> Result<Header, ConvertError> {
    let mut from = Variables::open(model)?;
    let shape = Shape::of(&mut from)?;
    let header = shape.header()?;
    let tokens = tokens(tokenizer, shape.vocabulary)?;
    header.write(to).map_err(ConvertError::Write)?;
    write_filters(to, shape.mels)?;
    write_numbers(to, &[count(tokens.len())])?;
    for token in &tokens {
        write_numbers(to, &[count(token.len())])?;
        to.write_all(token).map_err(ConvertError::Write)?;
    }
    Tensors { from, to }.all(&shape)?;
    Ok(header)
}

/// What the shapes of the variables say about the model.
struct Shape {
    vocabulary: u32,
    mels: u32,
    audio: Side,
    text: Side,
}

struct Side {
    name: &'static str,
    context: u32,
    width: u32,
    heads: u32,
    layers: u32,
}

impl Shape {
    fn of<R: Read + Seek>(from: &mut Variables<R>) -> Result<Self, ConvertError> {
        let conv = from.shape("encoder/conv1/weight")?;
        let &[width, mels, 3] = conv else {
            let wanted = vec![conv.first().copied().unwrap_or(0), 80, 3];
            return Err(ConvertError::Shape { name: "encoder/conv1/weight".to_owned(), found: conv.to_vec(), wanted });
        };
        let embeddings = from.shape("decoder/embeddings/weight")?;
        let &[vocabulary, text_width] = embeddings else {
            return Err(ConvertError::Shape {
                name: "decoder/embeddings/weight".to_owned(),
                found: embeddings.to_vec(),
                wanted: vec![ENGLISH, width],
            });
        };
        let audio = Side::of(from, "encoder", width)?;
        let text = Side::of(from, "decoder", text_width)?;
        Ok(Self { vocabulary, mels, audio, text })
    }

    fn header(&self) -> Result<Header, ConvertError> {
        let [vocabulary, mels] = [self.vocabulary, self.mels].map(u32::cast_signed);
        let [audio, text] =
            [&self.audio, &self.text].map(|s| [s.context, s.width, s.heads, s.layers].map(u32::cast_signed));
        let header = Header {
            vocabulary,
            audio_context: audio[0],
            audio_width: audio[1],
            audio_heads: audio[2],
            audio_layers: audio[3],
            text_context: text[0],
            text_width: text[1],
            text_heads: text[2],
            text_layers: text[3],
            mels,
            // 16-bit floats.
            file_type: 1,
        };
        header.check()?;
        Ok(header)
    }
}

impl Side {
    fn of<R: Read + Seek>(from: &mut Variables<R>, name: &'static str, width: u32) -> Result<Self, ConvertError> {
        let positions = format!("{name}/position_encodings/encodings");
        let context = from.shape(&positions)?.first().copied().unwrap_or(0);
        from.expect(&positions, &[context, width])?;
        let layer = |variable: &str| -> Option<u32> {
            variable.strip_prefix(name)?.strip_prefix("/layer_")?.split('/').next()?.parse().ok()
        };
        let layers = from.names().filter_map(layer).max().map_or(0, |last| last.saturating_add(1));
        let heads = from.integer(&format!("{name}/num_heads"))?.and_then(|n| u32::try_from(n).ok());
        Ok(Self { name, context, width, heads: heads.unwrap_or(width / HEAD_WIDTH), layers })
    }
}

/// The tensors on their way from one file to the other.
struct Tensors<'a, R, W> {
    from: Variables<R>,
    to: &'a mut W,
}

impl<R: Read + Seek, W: Write> Tensors<'_, R, W> {
    fn all(&mut self, shape: &Shape) -> Result<(), ConvertError> {
        for side in [&shape.audio, &shape.text] {
            let positions = format!("{}/position_encodings/encodings", side.name);
            self.put(&format!("{}.positional_embedding", side.name), &positions, &[side.context, side.width], false)?;
            for n in 0..side.layers {
                self.layer(side, shape.audio.width, n)?;
            }
        }
        let width = shape.audio.width;
        for (name, channels) in [("conv1", shape.mels), ("conv2", width)] {
            let (weight, bias) = (format!("encoder/{name}/weight"), format!("encoder/{name}/bias"));
            self.put(&format!("encoder.{name}.weight"), &weight, &[width, channels, 3], true)?;
            self.from.expect(&bias, &[width])?;
            self.write(&format!("encoder.{name}.bias"), &bias, 0..width, &[width, 1], false)?;
        }
        self.norm("encoder.ln_post", "encoder/layer_norm", width)?;
        self.norm("decoder.ln", "decoder/layer_norm", shape.text.width)?;
        let embeddings = [shape.vocabulary, shape.text.width];
        self.put("decoder.token_embedding.weight", "decoder/embeddings/weight", &embeddings, true)
    }

    fn layer(&mut self, side: &Side, audio_width: u32, n: u32) -> Result<(), ConvertError> {
        let (to, from) = (format!("{}.blocks.{n}", side.name), format!("{}/layer_{n}", side.name));
        let width = side.width;
        self.norm(&format!("{to}.attn_ln"), &format!("{from}/self_attention/layer_norm"), width)?;
        let all = format!("{from}/self_attention/linear_0");
        self.parts(&format!("{to}.attn"), &["query", "key", "value"], &all, width, width)?;
        self.linear(&format!("{to}.attn.out"), &format!("{from}/self_attention/linear_1"), width, width)?;
        if side.name == "decoder" {
            self.norm(&format!("{to}.cross_attn_ln"), &format!("{from}/attention/layer_norm"), width)?;
            self.linear(&format!("{to}.cross_attn.query"), &format!("{from}/attention/linear_0"), width, width)?;
            let both = format!("{from}/attention/linear_1");
            self.parts(&format!("{to}.cross_attn"), &["key", "value"], &both, width, audio_width)?;
            self.linear(&format!("{to}.cross_attn.out"), &format!("{from}/attention/linear_2"), width, width)?;
        }
        self.norm(&format!("{to}.mlp_ln"), &format!("{from}/ffn/layer_norm"), width)?;
        self.linear(&format!("{to}.mlp.0"), &format!("{from}/ffn/linear_0"), 4 * width, width)?;
        self.linear(&format!("{to}.mlp.2"), &format!("{from}/ffn/linear_1"), width, 4 * width)
    }

    fn norm(&mut self, to: &str, from: &str, width: u32) -> Result<(), ConvertError> {
        self.put(&format!("{to}.weight"), &format!("{from}/gamma"), &[width], false)?;
        self.put(&format!("{to}.bias"), &format!("{from}/beta"), &[width], false)
    }

    fn linear(&mut self, to: &str, from: &str, rows: u32, columns: u32) -> Result<(), ConvertError> {
        self.put(&format!("{to}.weight"), &format!("{from}/weight"), &[rows, columns], true)?;
        self.put(&format!("{to}.bias"), &format!("{from}/bias"), &[rows], false)
    }

    /// Divides one matrix, in which CTranslate2 joins those of an attention, into its parts. Whisper's key has no bias.
    fn parts(&mut self, to: &str, parts: &[&str], from: &str, rows: u32, columns: u32) -> Result<(), ConvertError> {
        let (weight, bias) = (format!("{from}/weight"), format!("{from}/bias"));
        let all = count(parts.len()).saturating_mul(rows);
        self.from.expect(&weight, &[all, columns])?;
        self.from.expect(&bias, &[all])?;
        for (n, part) in (0..).zip(parts) {
            let range = n * rows..(n + 1) * rows;
            self.write(&format!("{to}.{part}.weight"), &weight, range.clone(), &[rows, columns], true)?;
            if *part != "key" {
                self.write(&format!("{to}.{part}.bias"), &bias, range, &[rows], false)?;
            }
        }
        Ok(())
    }

    /// Writes a whole variable, which must have this shape.
    fn put(&mut self, to: &str, from: &str, shape: &[u32], half: bool) -> Result<(), ConvertError> {
        self.from.expect(from, shape)?;
        self.write(to, from, 0..shape[0], shape, half)
    }

    /// Writes a tensor: the number of its dimensions, the length of its name, its type, its dimensions with the innermost
    /// first, its name, its values.
    fn write(
        &mut self,
        to: &str,
        from: &str,
        rows: std::ops::Range<u32>,
        shape: &[u32],
        half: bool,
    ) -> Result<(), ConvertError> {
        write_numbers(self.to, &[count(shape.len()), count(to.len()), u32::from(half)])?;
        shape.iter().rev().try_for_each(|n| write_numbers(self.to, &[*n]))?;
        self.to.write_all(to.as_bytes()).map_err(ConvertError::Write)?;
        let to = &mut *self.to;
        self.from.rows(from, rows, half, |bytes| to.write_all(bytes).map_err(ConvertError::Write))
    }
}

#[derive(Deserialize)]
struct Tokenizer {
    model: Bpe,
}

#[derive(Deserialize)]
struct Bpe {
    vocab: HashMap<String, u32>,
}

/// Returns the bytes of each token by its number. Special tokens such as `<|en|>` are empty: whisper.cpp names them itself.
fn tokens(tokenizer: &[u8], vocabulary: u32) -> Result<Vec<Vec<u8>>, ConvertError> {
    let unusable = |why: String| ConvertError::Tokenizer(why);
    if tokenizer.len() as u64 > MAX_TOKENIZER {
        return Err(unusable(format!("it is larger than {MAX_TOKENIZER} bytes")));
    }
    let tokenizer: Tokenizer = serde_json::from_slice(tokenizer).map_err(|e| unusable(e.to_string()))?;
    let bytes_of = stand_ins();
    // The first of those that whisper.cpp adds.
    let end = if vocabulary == ENGLISH { 50_256 } else { 50_257 }.min(vocabulary);
    let mut tokens = vec![Vec::new(); end as usize];
    let mut known = 0;
    for (text, id) in tokenizer.model.vocab {
        let Some(token) = tokens.get_mut(id as usize) else { continue };
        known += 1;
        if text.starts_with("<|") {
            continue;
        }
        let bytes = text.chars().map(|c| bytes_of.get(&c).copied()).collect::<Option<Vec<u8>>>();
        *token = bytes.ok_or_else(|| unusable(format!("the token '{text}' is not in GPT-2's alphabet")))?;
    }
    if known < tokens.len() / 2 {
        return Err(unusable(format!("it has {known} of {} tokens", tokens.len())));
    }
    Ok(tokens)
}

/// GPT-2's printable characters for bytes: themselves where they are printable, and else the next from 256 on.
fn stand_ins() -> HashMap<char, u8> {
    let printable = |b: &u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let plain = (0..=255).filter(printable).map(|b| (char::from(b), b));
    let others = (0..=255).filter(|b| !printable(b)).zip(256..).filter_map(|(b, c)| Some((char::from_u32(c)?, b)));
    plain.chain(others).collect()
}

/// Writes the filters that Whisper was trained with: triangles on Slaney's mel scale, all of the same area.
fn write_filters(to: &mut impl Write, mels: u32) -> Result<(), ConvertError> {
    // Slaney's scale: linear up to 1 kHz (15 mel), logarithmic above.
    let step = 6.4_f64.ln() / 27.0;
    let hertz = |mel: f64| if mel >= 15.0 { 1000.0 * ((mel - 15.0) * step).exp() } else { mel * 200.0 / 3.0 };
    let top = 15.0 + (RATE / 2000.0).ln() / step;
    let last = f64::from(mels + 1);
    let edge = |n: u32| hertz(if n == mels + 1 { top } else { f64::from(n) * (top / last) });
    let bins = WINDOW / 2 + 1;
    write_numbers(to, &[mels, bins])?;
    for mel in 0..mels {
        let (low, middle, high) = (edge(mel), edge(mel + 1), edge(mel + 2));
        for bin in 0..bins {
            let at = f64::from(bin) * (RATE / f64::from(WINDOW));
            let height = ((at - low) / (middle - low)).min((high - at) / (high - middle)).max(0.0);
            let value = height * 2.0 / (high - low);
            #[expect(clippy::cast_possible_truncation, reason = "filters are 32-bit floats")]
            to.write_all(&(value as f32).to_le_bytes()).map_err(ConvertError::Write)?;
        }
    }
    Ok(())
}

fn write_numbers(to: &mut impl Write, numbers: &[u32]) -> Result<(), ConvertError> {
    numbers.iter().try_for_each(|n| to.write_all(&n.to_le_bytes())).map_err(ConvertError::Write)
}

/// A length as a number of the format. Lengths here are bounded far below 2^32.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
