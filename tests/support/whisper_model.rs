//! A Whisper model that has learnt nothing: whatever it hears, it answers " hello world" from 0 to 2 s and
//! " second segment" from 2 to 4 s of the window. Small, the same every time, made in a second. Used by `speech`.
//!
//! Every weight that would mix anything in is zero, and the position embeddings point straight at the wanted tokens.

use std::{fs, io, path::Path};

const WORDS: i32 = 51_864;
const AUDIO_CONTEXT: i32 = 1500;
const WIDTH: i32 = 64;
const HEADS: i32 = 2;
const LAYERS: i32 = 4;
const TEXT_CONTEXT: i32 = 448;
const MELS: i32 = 80;
const SPECTRUM: i32 = 201;
const END: usize = 50_256;
const TIMES: usize = 50_363;
/// `<|0.00|> hello world<|2.00|><|2.00|> second segment<|4.00|>` and the end.
const ANSWER: [usize; 9] = [TIMES, 0, 1, TIMES + 100, TIMES + 100, 2, 3, TIMES + 200, END];

/// Writes the model.
pub fn write(path: &Path) -> io::Result<()> {
    let mut model = Model { file: Vec::new(), state: 1 };
    model.file.extend(0x6767_6d6c_u32.to_le_bytes());
    model.ints(&[WORDS, AUDIO_CONTEXT, WIDTH, HEADS, LAYERS, TEXT_CONTEXT, WIDTH, HEADS, LAYERS, MELS, 1]);
    model.ints(&[MELS, SPECTRUM]);
    for mel in 0..MELS {
        // A filter for each, without overlap: nobody listens.
        (0..SPECTRUM).for_each(|bin| model.float(if bin * MELS / SPECTRUM == mel { 0.01 } else { 0.0 }));
    }
    model.ints(&[END as i32]);
    for n in 0..END {
        let word = match n {
            0 => " hello".to_owned(),
            1 => " world".to_owned(),
            2 => " second".to_owned(),
            3 => " segment".to_owned(),
            // whisper.cpp looks it up by name, and aborts without it.
            4 => " ".to_owned(),
            _ => format!(" w{n}"),
        };
        model.ints(&[word.len() as i32]);
        model.file.extend(word.as_bytes());
    }
    model.random("encoder.positional_embedding", &[WIDTH, AUDIO_CONTEXT], false);
    model.random("encoder.conv1.weight", &[3, MELS, WIDTH], true);
    model.fill("encoder.conv1.bias", &[1, WIDTH], 0.0, false);
    model.random("encoder.conv2.weight", &[3, WIDTH, WIDTH], true);
    model.fill("encoder.conv2.bias", &[1, WIDTH], 0.0, false);
    model.norm("encoder.ln_post");
    for side in ["encoder", "decoder"] {
        for layer in 0..LAYERS {
            let name = format!("{side}.blocks.{layer}");
            model.norm(&format!("{name}.mlp_ln"));
            model.random(&format!("{name}.mlp.0.weight"), &[WIDTH, 4 * WIDTH], true);
            model.fill(&format!("{name}.mlp.0.bias"), &[4 * WIDTH], 0.0, false);
            model.fill(&format!("{name}.mlp.2.weight"), &[4 * WIDTH, WIDTH], 0.0, true);
            model.fill(&format!("{name}.mlp.2.bias"), &[WIDTH], 0.0, false);
            model.attention(&name, "attn");
            if side == "decoder" {
                model.attention(&name, "cross_attn");
            }
        }
    }
    let tokens = model.tokens();
    let place = |n: usize| ANSWER.get(n).copied().unwrap_or(END);
    let positions =
        (0..TEXT_CONTEXT as usize).flat_map(|n| tokens[place(n)].iter().map(|v| v * 100.0)).collect::<Vec<_>>();
    model.tensor("decoder.positional_embedding", &[WIDTH, TEXT_CONTEXT], positions.into_iter(), false);
    model.tensor("decoder.token_embedding.weight", &[WIDTH, WORDS], tokens.into_iter().flatten(), true);
    model.norm("decoder.ln");
    fs::write(path, model.file)
}

struct Model {
    file: Vec<u8>,
    state: u64,
}

impl Model {
    fn ints(&mut self, all: &[i32]) {
        all.iter().for_each(|n| self.file.extend(n.to_le_bytes()));
    }

    fn float(&mut self, value: f32) {
        self.file.extend(value.to_le_bytes());
    }

    /// About normally distributed, by xorshift.
    fn noise(&mut self) -> f32 {
        let mut sum = -2.0;
        for _ in 0..4 {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            sum += (self.state >> 40) as f32 / (1u32 << 24) as f32;
        }
        sum * 1.7
    }

    /// A tensor: dimensions, length of its name, 0 or 1 for 32 or 16 bit, shape, name, values.
    fn tensor(&mut self, name: &str, shape: &[i32], values: impl Iterator<Item = f32>, half: bool) {
        self.ints(&[shape.len() as i32, name.len() as i32, i32::from(half)]);
        self.ints(shape);
        self.file.extend(name.as_bytes());
        for value in values {
            if half { self.file.extend(f16(value).to_le_bytes()) } else { self.float(value) }
        }
    }

    fn fill(&mut self, name: &str, shape: &[i32], value: f32, half: bool) {
        let size = shape.iter().product::<i32>() as usize;
        self.tensor(name, shape, std::iter::repeat_n(value, size), half);
    }

    fn random(&mut self, name: &str, shape: &[i32], half: bool) {
        let values: Vec<f32> = (0..shape.iter().product::<i32>()).map(|_| self.noise() * 0.02).collect();
        self.tensor(name, shape, values.into_iter(), half);
    }

    fn norm(&mut self, name: &str) {
        self.fill(&format!("{name}.weight"), &[WIDTH], 1.0, false);
        self.fill(&format!("{name}.bias"), &[WIDTH], 0.0, false);
    }

    fn attention(&mut self, layer: &str, kind: &str) {
        self.norm(&format!("{layer}.{kind}_ln"));
        for part in ["query", "key", "value"] {
            self.random(&format!("{layer}.{kind}.{part}.weight"), &[WIDTH, WIDTH], true);
        }
        for part in ["query", "value", "out"] {
            self.fill(&format!("{layer}.{kind}.{part}.bias"), &[WIDTH], 0.0, false);
        }
        self.fill(&format!("{layer}.{kind}.out.weight"), &[WIDTH, WIDTH], 0.0, true);
    }

    /// Embeddings that don't resemble each other: without a mean, all of one length.
    fn tokens(&mut self) -> Vec<Vec<f32>> {
        let embedding = |_| {
            let mut values: Vec<f32> = (0..WIDTH).map(|_| self.noise()).collect();
            let mean = values.iter().sum::<f32>() / WIDTH as f32;
            values.iter_mut().for_each(|v| *v -= mean);
            let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
            values.iter_mut().for_each(|v| *v *= 8.0 / length);
            values
        };
        (0..WORDS).map(embedding).collect()
    }
}

/// Half precision, cut off; what is too small for it is zero.
fn f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    if exponent <= 0 {
        return 0;
    }
    (bits >> 16 & 0x8000) as u16 | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16
}
