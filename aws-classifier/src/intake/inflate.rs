//! Gzip, bounded. Ordinary CloudTrail files are inflated in one go by libdeflate; large, multi-member and damaged ones
//! go through a streaming decoder, so that memory stays bounded and what can be read is read.

use std::io::{self, Read, Write};

use flate2::bufread::MultiGzDecoder;
use libdeflater::{Crc, Decompressor};

/// Files that inflate to more are streamed: CloudTrail's own files stay far below.
const WHOLE_BYTES_MAX: usize = 48 << 20;
/// A file that inflates to more than this many times its size is a bomb: CloudTrail files reach about 20:1.
const RATIO_MAX: u64 = 200;
/// Small files may have any ratio.
const RATIO_FREE_BYTES: u64 = 16 << 20;

/// Whether the bytes start as gzip does.
pub fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b])
}

/// Inflates whole files, reusing its tables.
pub struct Inflater(Decompressor);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompressor::new())
    }
}

impl Inflater {
    /// Inflates an ordinary gzip file into `into`. `false`, with rubbish in `into`, when the file is large, has several
    /// members or is damaged: then [`stream`] is the way.
    pub fn whole(&mut self, gzip: &[u8], into: &mut Vec<u8>) -> bool {
        let Some((_, trailer)) = gzip.split_last_chunk::<8>() else { return false };
        let [c0, c1, c2, c3, s0, s1, s2, s3] = *trailer;
        let (crc, size) = (u32::from_le_bytes([c0, c1, c2, c3]), u32::from_le_bytes([s0, s1, s2, s3]) as usize);
        if size > WHOLE_BYTES_MAX || is_bomb(size as u64, gzip.len() as u64) {
            return false;
        }
        let Some(deflated) = behind_header(gzip) else { return false };
        // What an earlier file left is overwritten: zeroing it first would cost as much as reading it.
        into.truncate(size);
        into.resize(size, 0);
        // The last member's checksum must be that of all we have, else there was more than one member. Summed up here,
        // as the library would check the first member's only.
        self.0.deflate_decompress(deflated, into).is_ok_and(|n| n == size) && {
            let mut sum = Crc::new();
            sum.update(into);
            sum.sum() == crc
        }
    }
}

/// What stands behind the header of the first member (RFC 1952); `None` when it is none or ends too early.
fn behind_header(gzip: &[u8]) -> Option<&[u8]> {
    const HAS_SUM: u8 = 1 << 1;
    const HAS_EXTRA: u8 = 1 << 2;
    const HAS_NAME: u8 = 1 << 3;
    const HAS_COMMENT: u8 = 1 << 4;
    const RESERVED: u8 = !0 << 5;
    let ([0x1f, 0x8b, 8, flags, ..], mut rest) = gzip.split_first_chunk::<10>()? else { return None };
    if flags & RESERVED != 0 {
        return None;
    }
    if flags & HAS_EXTRA != 0 {
        let (bytes, behind) = rest.split_first_chunk::<2>()?;
        rest = behind.get(usize::from(u16::from_le_bytes(*bytes))..)?;
    }
    for has_text in [flags & HAS_NAME != 0, flags & HAS_COMMENT != 0] {
        if has_text {
            rest = &rest[memchr::memchr(0, rest)? + 1..];
        }
    }
    if flags & HAS_SUM != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

fn is_bomb(inflated: u64, compressed: u64) -> bool {
    inflated > RATIO_FREE_BYTES && inflated / RATIO_MAX > compressed
}

/// A streaming decoder for all members of a gzip file. Reading fails when the file is damaged or a bomb.
pub fn stream<R: Read + Send + 'static>(gzip: R) -> Box<dyn Read + Send> {
    Box::new(Bounded {
        decoder: MultiGzDecoder::new(io::BufReader::with_capacity(1 << 18, Counted { inner: gzip, read: 0 })),
        inflated: 0,
    })
}

/// Inflates a gzip file, all its members, that arrives in pieces.
pub struct InflatePieces {
    decoder: flate2::write::MultiGzDecoder<Vec<u8>>,
    read: u64,
    inflated: u64,
}

impl Default for InflatePieces {
    fn default() -> Self {
        Self { decoder: flate2::write::MultiGzDecoder::new(Vec::new()), read: 0, inflated: 0 }
    }
}

impl InflatePieces {
    /// What the next piece inflates to, at most 1,032 times its size.
    ///
    /// # Errors
    /// When the file is damaged or a bomb.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        self.decoder.write_all(piece)?;
        let inflated = std::mem::take(self.decoder.get_mut());
        self.read += piece.len() as u64;
        self.inflated += inflated.len() as u64;
        if is_bomb(self.inflated, self.read) { Err(bomb()) } else { Ok(inflated) }
    }

    /// What is left.
    ///
    /// # Errors
    /// When the file ends too early or its checksum is wrong.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.decoder.finish()
    }
}

fn bomb() -> io::Error {
    io::Error::other(format!("inflates to more than {RATIO_MAX} times its size, a gzip bomb"))
}

struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}

struct Bounded<R: Read> {
    decoder: MultiGzDecoder<io::BufReader<Counted<R>>>,
    inflated: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(buffer)?;
        self.inflated += n as u64;
        if is_bomb(self.inflated, self.decoder.get_ref().get_ref().read) {
            return Err(bomb());
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn headers_with_names_comments_and_more_are_passed_over() {
        let text = b"{\"Records\":[]}";
        let builder = || flate2::GzBuilder::new();
        for builder in [
            builder(),
            builder().filename("a.json"),
            builder().comment("why").extra(vec![0, 1, 2]),
            builder().extra(vec![7; 300]).filename("b").comment("c"),
        ] {
            let mut encoder = builder.write(Vec::new(), Compression::default());
            encoder.write_all(text).expect("memory");
            let gzip = encoder.finish().expect("memory");
            let mut into = Vec::new();
            assert!(Inflater::default().whole(&gzip, &mut into));
            assert_eq!(into, text);
            for end in 0..gzip.len() {
                assert!(!Inflater::default().whole(&gzip[..end], &mut into), "{end}");
            }
        }
    }

    #[test]
    fn several_members_and_damage_are_left_to_the_stream() {
        let (one, mut into) = (gzip(b"abcdefgh"), Vec::new());
        assert!(Inflater::default().whole(&one, &mut into));
        assert!(!Inflater::default().whole(&[&*one, &gzip(b"ijklmnop")].concat(), &mut into));
        let mut flipped = one;
        let sum = flipped.len() - 8;
        flipped[sum] ^= 1;
        assert!(!Inflater::default().whole(&flipped, &mut into));
    }

    fn inflated(gzip: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let (mut pieces, mut text) = (InflatePieces::default(), Vec::new());
        for piece in gzip.chunks(piece) {
            text.extend(pieces.push(piece)?);
        }
        text.extend(pieces.finish()?);
        Ok(text)
    }

    #[test]
    fn pieces_of_any_size_and_several_members_are_inflated() {
        let both = [gzip(b"one line\n"), gzip(b"another line\n")].concat();
        for piece in [1, 2, 7, 1000] {
            assert_eq!(inflated(&both, piece).expect("whole"), b"one line\nanother line\n", "pieces of {piece}");
        }
    }

    #[test]
    fn damaged_files_and_bombs_are_refused() {
        let good = gzip(&b"some text that repeats itself, some text that repeats itself".repeat(50));
        for cut in [1, 5, 9, good.len() / 2] {
            assert!(inflated(&good[..good.len() - cut], 16).is_err(), "{cut} bytes are missing");
        }
        let mut wrong = good.clone();
        let sum = wrong.len() - 6;
        wrong[sum] ^= 1;
        assert!(inflated(&wrong, 16).is_err(), "the checksum is wrong");
        assert!(inflated(b"no gzip at all", 16).is_err());
        let error = inflated(&gzip(&vec![b' '; 64 << 20]), 16 << 10).expect_err("a bomb");
        assert!(error.to_string().contains("bomb"), "{error}");
    }
}
