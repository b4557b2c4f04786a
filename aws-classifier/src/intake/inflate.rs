//! Gzip, bounded. Ordinary CloudTrail files are inflated in one go by libdeflate; large, multi-member and damaged ones
//! go through a streaming decoder, so that memory stays bounded and what can be read is read.

use std::io::{self, Read};

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
        // What an earlier file left is overwritten: zeroing it first would cost as much as reading it.
        into.truncate(size);
        into.resize(size, 0);
        // The last member's checksum must be that of all we have, else there was more than one member.
        self.0.gzip_decompress(gzip, into).is_ok_and(|n| n == size) && {
            let mut sum = Crc::new();
            sum.update(into);
            sum.sum() == crc
        }
    }
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
            return Err(io::Error::other(format!("inflates to more than {RATIO_MAX} times its size, a gzip bomb")));
        }
        Ok(n)
    }
}
