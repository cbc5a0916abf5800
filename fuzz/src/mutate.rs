//! Mutations: what is wrong with bytes that are nearly right.

/// Numbers that are at the edge of something, and heads of CBOR items with long or no lengths.
const EDGES: [u8; 24] = [
    0x00, 0x01, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1f, 0x20, 0x3b, 0x40, 0x5b, 0x5f, 0x60, 0x7b, 0x7f, 0x80, 0x9b, 0x9f,
    0xbf, 0xc4, 0xf6, 0xfb, 0xff,
];

/// Changes bytes, the same way for the same seed.
pub struct Mutator(u64);

impl Mutator {
    /// From a seed.
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below another, which is not 0.
    fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    /// One of the seeds with one to eight changes.
    pub fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..1 + self.below(8) {
            let other = self.below(seeds.len());
            self.change(&mut bytes, &seeds[other]);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let end = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(9) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            2 if at < bytes.len() => bytes[at] = EDGES[self.below(EDGES.len())],
            3 if at < bytes.len() => bytes[at] = self.next() as u8,
            4 => bytes.insert(at, EDGES[self.below(EDGES.len())]),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let again = bytes[at..end].repeat(1 + self.below(8));
                bytes.splice(at..at, again);
            }
            7 if !other.is_empty() => {
                let from = self.below(other.len());
                let to = (from + 1 + self.below(64)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            8 if self.below(8) == 0 => bytes.truncate(at),
            _ => {
                let number = self.next().to_be_bytes();
                bytes.splice(at..end, number[..self.below(9)].iter().copied());
            }
        }
    }
}
