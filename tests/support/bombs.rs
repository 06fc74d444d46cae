//! Small files that cost their decoder far more than they weigh: one for each way that a parser can be made to reserve
//! memory, to go round in circles, or to seek where nothing is. Built in code, the same every time.

use flate2::{Compression, write::ZlibEncoder};
use std::io::Write;

/// The size of those that are as large as what they cost, divided by some twenty.
const LARGE: usize = 14_000_000;

/// Every bomb with its name.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("caf-frames-per-packet.caf", caf_frames_per_packet()),
        ("caf-packet-table.caf", caf_packet_table()),
        ("caf-cookie.caf", caf_cookie()),
        ("mov-lpcm-frames-per-packet.mov", mov_lpcm()),
        ("mp4-tables.mp4", mp4_tables()),
        ("mp4-boxes.mp4", small_boxes()),
        ("webm-tags.webm", webm_tags()),
        ("webm-codec-private.webm", webm_codec_private()),
        ("flac-comments.flac", flac_comments()),
        ("ogg-comments.ogg", ogg_comments()),
        ("id3-strings.mp3", id3_strings()),
        ("wav-chunks.wav", small_chunks(b"RIFF", b"WAVE")),
        ("wav-info.wav", wav_info()),
        ("aiff-chunks.aiff", small_chunks(b"FORM", b"AIFF")),
        ("avi-picture.avi", avi_picture(24_000)),
        ("ts-noise.ts", ts_noise()),
        ("wav-beyond.wav", wav_beyond()),
    ]
}

fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&name[..], &(body.len() as u32).to_le_bytes(), body].concat()
}

fn atom(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], name, body].concat()
}

fn caf(format: [u8; 4], bytes_per_packet: u32, frames_per_packet: u32, rest: &[u8]) -> Vec<u8> {
    let mut file = b"caff\0\x01\0\0desc".to_vec();
    file.extend(32_i64.to_be_bytes());
    file.extend(16_000_f64.to_be_bytes());
    file.extend(format);
    for word in [0, bytes_per_packet, frames_per_packet, 1, 0] {
        file.extend(u32::to_be_bytes(word));
    }
    file.extend(rest);
    file
}

fn caf_chunk(name: &[u8; 4], length: i64, body: &[u8]) -> Vec<u8> {
    [&name[..], &length.to_be_bytes(), body].concat()
}

/// 102 bytes that ask for 34 GB.
fn caf_frames_per_packet() -> Vec<u8> {
    caf(*b"ima4", 34, u32::MAX, &caf_chunk(b"data", 38, &[0; 38]))
}

/// A byte for each packet, of which each is remembered in 24.
fn caf_packet_table() -> Vec<u8> {
    let mut table = (LARGE as i64).to_be_bytes().to_vec();
    table.extend(i64::MAX.to_be_bytes());
    table.extend([0; 8]);
    table.resize(24 + LARGE, 1);
    caf(*b"aac ", 0, 1_024, &caf_chunk(b"pakt", table.len() as i64, &table))
}

fn caf_cookie() -> Vec<u8> {
    caf(*b"aac ", 0, 1_024, &caf_chunk(b"kuki", 1 << 40, &[0; 64]))
}

/// A movie whose one track has this description and these tables.
fn movie(description: &[u8], tables: &[u8]) -> Vec<u8> {
    let zeros = |n: usize| vec![0; n];
    let mut header = zeros(12);
    header.extend(16_000_u32.to_be_bytes());
    header.extend(zeros(84));
    let mut track = zeros(12);
    track.extend(1_u32.to_be_bytes());
    track.extend(zeros(68));
    let mut media = zeros(12);
    media.extend(16_000_u32.to_be_bytes());
    media.extend(16_000_u32.to_be_bytes());
    media.extend(zeros(4));
    let mut handler = zeros(8);
    handler.extend(b"soun");
    handler.extend(zeros(13));
    let mut descriptions = zeros(4);
    descriptions.extend(1_u32.to_be_bytes());
    descriptions.extend(description);
    let samples = atom(b"stbl", &[atom(b"stsd", &descriptions), tables.to_vec()].concat());
    let information = atom(b"minf", &[atom(b"smhd", &zeros(8)), samples].concat());
    let media = atom(b"mdia", &[atom(b"mdhd", &media), atom(b"hdlr", &handler), information].concat());
    let track = atom(b"trak", &[atom(b"tkhd", &track), media].concat());
    let movie = atom(b"moov", &[atom(b"mvhd", &header), track].concat());
    [atom(b"ftyp", b"qt  \0\0\0\0qt  "), movie, atom(b"mdat", &zeros(64))].concat()
}

fn table(name: &[u8; 4], words: &[u32]) -> Vec<u8> {
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    atom(name, &[&[0; 4], &words[..]].concat())
}

fn whole_tables() -> Vec<u8> {
    [table(b"stts", &[1, 16, 1]), table(b"stsc", &[1, 1, 16, 1]), table(b"stsz", &[2, 16]), table(b"stco", &[1, 0])]
        .concat()
}

fn mov_lpcm() -> Vec<u8> {
    let mut entry = vec![0; 6];
    entry.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 16, 0xff, 0xfe, 0, 0, 0, 1, 0, 0]);
    entry.extend(72_u32.to_be_bytes());
    entry.extend(16_000_f64.to_be_bytes());
    for word in [1_u32, 0x7f00_0000, 16, 4, 2, u32::MAX] {
        entry.extend(word.to_be_bytes());
    }
    movie(&atom(b"lpcm", &entry), &whole_tables())
}

/// Tables that count more than the file could hold.
fn mp4_tables() -> Vec<u8> {
    let many = u32::MAX / 8;
    let tables = [
        table(b"stts", &[many, u32::MAX, 1]),
        table(b"stsc", &[many, 1, 16, 1]),
        table(b"stsz", &[0, many]),
        table(b"co64", &[many, 0, 0]),
    ];
    movie(&atom(b"sowt", &[0, 0, 0, 0, 0, 0, 0, 1].repeat(4)), &tables.concat())
}

fn small_boxes() -> Vec<u8> {
    let mut file = atom(b"ftyp", b"isom\0\0\0\0isom");
    while file.len() < LARGE {
        file.extend(b"\0\0\0\x08free");
    }
    file
}

/// An element with its length in eight bytes.
fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
    [id, &[1], &(body.len() as u64).to_be_bytes()[1..], body].concat()
}

fn matroska(inside: &[u8]) -> Vec<u8> {
    let header = element(b"\x1a\x45\xdf\xa3", &element(b"\x42\x82", b"webm"));
    [header, element(b"\x18\x53\x80\x67", inside)].concat()
}

fn webm_tags() -> Vec<u8> {
    let simple: &[u8] = b"\x67\xc8\x88\x45\xa3\x81a\x44\x87\x81b";
    matroska(&element(b"\x12\x54\xc3\x67", &element(b"\x73\x73", &simple.repeat(LARGE / simple.len()))))
}

fn webm_codec_private() -> Vec<u8> {
    let huge = [b"\x63\xa2\x01".as_slice(), &(1_u64 << 40).to_be_bytes()[1..]].concat();
    let entry = [element(b"\xd7", &[1]), element(b"\x83", &[2]), element(b"\x86", b"A_OPUS"), huge].concat();
    matroska(&element(b"\x16\x54\xae\x6b", &element(b"\xae", &entry)))
}

/// Comments of two bytes.
fn comments(most: usize) -> Vec<u8> {
    let count = (most - 8) / 6;
    let mut body = vec![0; 4];
    body.extend((count as u32).to_le_bytes());
    body.extend(b"\x02\0\0\0a=".repeat(count));
    body
}

fn flac_comments() -> Vec<u8> {
    let mut file = b"fLaC\0\0\0\x22".to_vec();
    file.extend(b"\x10\0\x10\0\0\0\0\0\0\0\x03\xe8\x00\xf0\0\0\0\0");
    file.extend([0; 16]);
    let body = comments(LARGE);
    file.push(0x84);
    file.extend(&(body.len() as u32).to_be_bytes()[1..]);
    file.extend(body);
    file
}

/// An Ogg stream whose comments cost what they cost, from its first packet on.
pub fn ogg_comments() -> Vec<u8> {
    let mut first = b"\x01vorbis\0\0\0\0\x01".to_vec();
    first.extend(16_000_u32.to_le_bytes());
    first.extend([0; 12]);
    first.extend(b"\xb8\x01");
    let second = [b"\x03vorbis".as_slice(), &comments(LARGE), &[1]].concat();
    let mut file = ogg_page(0, 2, &[30], &first);
    for (i, part) in second.chunks(255 * 255).enumerate() {
        let mut lacing = vec![255; part.len() / 255];
        if part.len() < 255 * 255 {
            lacing.push((part.len() % 255) as u8);
        }
        file.extend(ogg_page(i as u32 + 1, u8::from(i > 0), &lacing, part));
    }
    file
}

fn ogg_page(number: u32, flags: u8, lacing: &[u8], body: &[u8]) -> Vec<u8> {
    let mut page = b"OggS\0".to_vec();
    page.push(flags);
    page.extend([0; 8]);
    page.extend(7_u32.to_le_bytes());
    page.extend(number.to_le_bytes());
    page.extend([0; 4]);
    page.push(lacing.len() as u8);
    page.extend(lacing);
    page.extend(body);
    let sum = page.iter().fold(0_u32, |sum, byte| {
        (0..8).fold(sum ^ (u32::from(*byte) << 24), |sum, _| {
            if sum & 0x8000_0000 == 0 { sum << 1 } else { (sum << 1) ^ 0x04c1_1db7 }
        })
    });
    page[22..26].copy_from_slice(&sum.to_le_bytes());
    page
}

fn id3_strings() -> Vec<u8> {
    let safe = |n: usize| [(n >> 21) as u8 & 0x7f, (n >> 14) as u8 & 0x7f, (n >> 7) as u8 & 0x7f, n as u8 & 0x7f];
    let text = [b"\x03".as_slice(), &b"a\0".repeat(LARGE / 2)].concat();
    let frame = [b"TPE1".as_slice(), &safe(text.len()), &[0, 0], &text].concat();
    [b"ID3\x04\0\0".as_slice(), &safe(frame.len()), &frame].concat()
}

/// A file of nothing but chunks that hold nothing.
fn small_chunks(kind: &[u8; 4], form: &[u8; 4]) -> Vec<u8> {
    let mut file = [kind.as_slice(), &[0x7f, 0xff, 0xff, 0x7f], form].concat();
    file.extend(b"junk\0\0\0\0".repeat(LARGE / 8));
    file
}

fn wav_info() -> Vec<u8> {
    let inside = [b"INFO".as_slice(), &b"IART\x02\0\0\0a\0".repeat(LARGE / 10)].concat();
    let body = [b"WAVE".as_slice(), &chunk(b"LIST", &inside)].concat();
    chunk(b"RIFF", &body)
}

/// A picture of `side` × `side` pixels in a video that only ffmpeg reads.
fn avi_picture(side: u32) -> Vec<u8> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    let row = vec![0; side as usize + 1];
    for _ in 0..side {
        packed.write_all(&row).unwrap();
    }
    let sum = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_be_bytes()
    };
    let part = |name: &[u8; 4], body: &[u8]| {
        let named = [name.as_slice(), body].concat();
        [&(body.len() as u32).to_be_bytes()[..], &named, &sum(&named)].concat()
    };
    let head = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let png = [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        part(b"IHDR", &head),
        part(b"IDAT", &packed.finish().unwrap()),
        part(b"IEND", &[]),
    ]
    .concat();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let main = words(&[1_000_000, 0, 0, 0, 1, 0, 1, 0, side, side, 0, 0, 0, 0]);
    let stream = [b"vidsMPNG".to_vec(), words(&[0, 0, 0, 1, 1, 0, 1, 0, 0, 0]), vec![0; 8]].concat();
    let format = [words(&[40, side, side, 0x0008_0001]), b"MPNG".to_vec(), words(&[0, 0, 0, 0, 0])].concat();
    let list = |kind: &[u8; 4], body: &[u8]| chunk(b"LIST", &[kind.as_slice(), body].concat());
    let streams = list(b"strl", &[chunk(b"strh", &stream), chunk(b"strf", &format)].concat());
    let frame = chunk(b"00dc", &if png.len() % 2 == 0 { png } else { [png, vec![0]].concat() });
    let inside = [list(b"hdrl", &[chunk(b"avih", &main), streams].concat()), list(b"movi", &frame)].concat();
    chunk(b"RIFF", &[b"AVI ".to_vec(), inside].concat())
}

/// Packets of a transport stream, each of another stream.
fn ts_noise() -> Vec<u8> {
    let mut file = Vec::new();
    let mut random = 1_u32;
    while file.len() < LARGE / 4 {
        file.extend([b'G', 0x40 | (random >> 8) as u8 & 0x1f, random as u8, 0x10]);
        for _ in 0..184 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            file.push((random >> 24) as u8);
        }
    }
    file
}

/// Samples that begin beyond what a file can hold.
fn wav_beyond() -> Vec<u8> {
    let mut file = b"RF64\xff\xff\xff\xffWAVE".to_vec();
    let sizes: Vec<u8> = [u64::MAX, u64::MAX, u64::MAX].iter().flat_map(|n| n.to_le_bytes()).collect();
    file.extend(chunk(b"ds64", &[sizes, vec![0; 4]].concat()));
    file.extend(b"data\xff\xff\xff\xff");
    file.extend([0; 64]);
    file
}
