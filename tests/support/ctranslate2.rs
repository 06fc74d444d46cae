//! A small model in CTranslate2's format, as a list of variables that a test may change before they are written. Used by
//! `models`.

use half::f16;

/// How many tokens the model has.
pub const WORDS: u32 = 1000;
/// The values in a state. Audio and text have the same here, as in all of OpenAI's models.
pub const WIDTH: u32 = 8;

#[derive(Clone)]
pub struct Variable {
    pub name: String,
    pub dims: Vec<u32>,
    /// 0 for f32, 1 for i8, 2 for i16, 4 for f16.
    pub kind: u8,
    pub bytes: Vec<u8>,
}

/// The variables of a model with two audio and one text layer. The n-th value of each is a multiple of 1/64 that depends on
/// `n` and on the variable, so that 16 bits hold it exactly.
pub fn variables(half: bool) -> Vec<Variable> {
    let mut all = Vec::new();
    let mut add = |name: &str, dims: &[u32]| {
        let seed = name.bytes().map(u32::from).sum::<u32>();
        let values = (0..dims.iter().product()).map(|n| value(seed, n));
        let bytes: Vec<u8> = if half {
            values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect()
        } else {
            values.flat_map(f32::to_le_bytes).collect()
        };
        all.push(Variable { name: name.to_owned(), dims: dims.to_vec(), kind: if half { 4 } else { 0 }, bytes });
    };
    let w = WIDTH;
    add("encoder/conv1/weight", &[w, 5, 3]);
    add("encoder/conv1/bias", &[w]);
    add("encoder/conv2/weight", &[w, w, 3]);
    add("encoder/conv2/bias", &[w]);
    for (side, context, layers) in [("encoder", 6, 2), ("decoder", 4, 1)] {
        add(&format!("{side}/position_encodings/encodings"), &[context, w]);
        add(&format!("{side}/layer_norm/gamma"), &[w]);
        add(&format!("{side}/layer_norm/beta"), &[w]);
        for n in 0..layers {
            let at = |rest: &str| format!("{side}/layer_{n}/{rest}");
            let mut linear = |name: &str, rows: u32, columns: u32| {
                add(&at(&format!("{name}/weight")), &[rows, columns]);
                add(&at(&format!("{name}/bias")), &[rows]);
            };
            linear("self_attention/linear_0", 3 * w, w);
            linear("self_attention/linear_1", w, w);
            if side == "decoder" {
                linear("attention/linear_0", w, w);
                linear("attention/linear_1", 2 * w, w);
                linear("attention/linear_2", w, w);
            }
            linear("ffn/linear_0", 4 * w, w);
            linear("ffn/linear_1", w, 4 * w);
            for norm in ["self_attention", "attention", "ffn"] {
                if norm != "attention" || side == "decoder" {
                    add(&at(&format!("{norm}/layer_norm/gamma")), &[w]);
                    add(&at(&format!("{norm}/layer_norm/beta")), &[w]);
                }
            }
        }
    }
    add("decoder/embeddings/weight", &[WORDS, w]);
    for side in ["encoder", "decoder"] {
        let name = format!("{side}/num_heads");
        all.push(Variable { name, dims: Vec::new(), kind: 2, bytes: 2_i16.to_le_bytes().to_vec() });
    }
    all
}

/// The n-th value of a variable.
pub fn value(seed: u32, n: u32) -> f32 {
    ((seed * 7 + n * 13) % 1021) as f32 / 64.0 - 8.0
}

/// Writes a file of these variables, with the alias that real ones have.
pub fn file(variables: &[Variable]) -> Vec<u8> {
    let mut file = Vec::new();
    let string = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u16 + 1).to_le_bytes());
        file.extend(text.as_bytes());
        file.push(0);
    };
    file.extend(6_u32.to_le_bytes());
    string(&mut file, "WhisperSpec");
    file.extend(3_u32.to_le_bytes());
    file.extend((variables.len() as u32).to_le_bytes());
    for variable in variables {
        string(&mut file, &variable.name);
        file.push(variable.dims.len() as u8);
        variable.dims.iter().for_each(|n| file.extend(n.to_le_bytes()));
        file.push(variable.kind);
        file.extend((variable.bytes.len() as u32).to_le_bytes());
        file.extend(&variable.bytes);
    }
    file.extend(1_u32.to_le_bytes());
    string(&mut file, "decoder/projection/weight");
    string(&mut file, "decoder/embeddings/weight");
    file
}

/// The tokenizer.json of such a model: the n-th token is `Ġwn`, that is a blank and `wn`.
pub fn tokenizer() -> Vec<u8> {
    let vocab: std::collections::BTreeMap<String, u32> = (0..WORDS)
        .map(|n| match n {
            // A byte without a character of its own, and one that is no character alone.
            0 => ("Ċ".to_owned(), 0),
            1 => ("Ã".to_owned(), 1),
            999 => ("<|endoftext|>".to_owned(), 999),
            n => (format!("Ġw{n}"), n),
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({ "model": { "type": "BPE", "vocab": vocab } })).unwrap()
}
