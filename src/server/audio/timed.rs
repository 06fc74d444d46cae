//! ffmpeg's output: samples with their times, as its Matroska muxer writes them to a pipe. Only what it writes is read:
//! blocks of one track, without lacing. ffmpeg may have been taken over by a recording, so every length is limited. Called
//! by `process`.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::wire;

/// Elements that are entered: their parts are read one by one, whatever length they declare.
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const CLUSTER: u32 = 0x1f43_b675;
const BLOCK_GROUP: u32 = 0xa0;
/// Nanoseconds in a unit of the times below.
const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
/// The time of a cluster.
const TIMESTAMP: u32 = 0xe7;
const BLOCK: u32 = 0xa1;
const SIMPLE_BLOCK: u32 = 0xa3;

/// The longest element that isn't entered, in bytes. Blocks have a few thousand.
const MAX_ELEMENT: u64 = 1 << 20;

/// Reads samples and their times.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Seconds in a unit of time.
    unit: f64,
    /// The time of the cluster, in units.
    cluster: u64,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self { unit: 1e-3, cluster: 0 }
    }

    /// Returns when the next samples begin, in seconds, and the samples; none at the end. The future must not be dropped
    /// before it is done.
    ///
    /// # Errors
    /// `InvalidData` if it isn't such output, `UnexpectedEof` if it is incomplete.
    pub(super) async fn next(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(f64, Vec<i16>)>> {
        while let Some(id) = id(from).await? {
            let length = length(from).await?;
            if matches!(id, SEGMENT | INFO | CLUSTER | BLOCK_GROUP) {
                continue;
            }
            let length = length.filter(|length| *length <= MAX_ELEMENT).ok_or(ErrorKind::InvalidData)?;
            let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            from.read_exact(&mut body).await?;
            let number = || body.iter().take(8).fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
            match id {
                TIMESTAMP_SCALE => self.unit = number() as f64 * 1e-9,
                TIMESTAMP => self.cluster = number(),
                BLOCK | SIMPLE_BLOCK => {
                    // The number of the track, in a byte, the time after that of the cluster, and flags.
                    let [_, high, low, flags, samples @ ..] = &body[..] else {
                        return Err(ErrorKind::InvalidData.into());
                    };
                    if flags & 0x06 != 0 {
                        return Err(ErrorKind::InvalidData.into());
                    }
                    let at = self.cluster as f64 + f64::from(i16::from_be_bytes([*high, *low]));
                    return Ok(Some((at * self.unit, wire::samples(samples))));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Reads the id of an element; none at the end.
async fn id(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<u32>> {
    let mut first = [0];
    if from.read(&mut first).await? == 0 {
        return Ok(None);
    }
    let more = first[0].leading_zeros() as usize;
    let mut rest = [0; 3];
    let rest = rest.get_mut(..more).ok_or(ErrorKind::InvalidData)?;
    from.read_exact(rest).await?;
    Ok(Some(rest.iter().fold(u32::from(first[0]), |sum, byte| sum << 8 | u32::from(*byte))))
}

/// Reads the length of an element; none if it is unknown.
async fn length(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<u64>> {
    let first = from.read_u8().await?;
    let more = first.leading_zeros() as usize;
    let mut rest = [0; 7];
    let rest = rest.get_mut(..more).ok_or(ErrorKind::InvalidData)?;
    from.read_exact(rest).await?;
    let bits = 7 * (more as u32 + 1);
    let length = rest.iter().fold(u64::from(first), |sum, byte| sum << 8 | u64::from(*byte)) & ((1 << bits) - 1);
    Ok((length != (1 << bits) - 1).then_some(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(mut bytes: &[u8]) -> io::Result<Vec<(f64, Vec<i16>)>> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let (mut blocks, mut found) = (Blocks::new(), Vec::new());
            while let Some(block) = blocks.next(&mut bytes).await? {
                found.push(block);
            }
            Ok(found)
        })
    }

    const OUTPUT: &[u8] = b"\x1a\x45\xdf\xa3\x82xx\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff\
        \x15\x49\xa9\x66\x87\x2a\xd7\xb1\x83\x0f\x42\x40\x16\x54\xae\x6b\x81x\
        \x1f\x43\xb6\x75\xff\xe7\x82\x03\xe8\xa3\x88\x81\0\x05\x80\x01\0\xfe\xff\
        \x1f\x43\xb6\x75\x8c\xe7\x81\x07\xa0\x87\xa1\x86\x81\xff\xff\0\x03\0";

    #[test]
    fn blocks_have_the_time_of_their_cluster_and_their_own() {
        let found = all(OUTPUT).unwrap().into_iter().map(|(at, samples)| ((at * 1e3).round(), samples));
        assert_eq!(found.collect::<Vec<_>>(), [(1_005.0, vec![1, -2]), (6.0, vec![3])]);
        assert_eq!(all(b"").unwrap(), []);
    }

    #[test]
    fn what_ffmpeg_does_not_write_is_refused() {
        for (bytes, kind) in [
            (&b"\0"[..], ErrorKind::InvalidData),
            (b"\xa3\xff", ErrorKind::InvalidData),
            (b"\xa3\x01\0\0\0\xff\0\0\0", ErrorKind::InvalidData),
            (b"\xa3\x81\x81", ErrorKind::InvalidData),
            (b"\xa3\x84\x81\0\0\x06", ErrorKind::InvalidData),
            (b"\xa3\x84\x81\0\0", ErrorKind::UnexpectedEof),
            (&OUTPUT[..OUTPUT.len() - 1], ErrorKind::UnexpectedEof),
        ] {
            assert_eq!(all(bytes).unwrap_err().kind(), kind, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_blocks_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes);
        }
    }
}
