//! CRC-32 (IEEE) of a record whose front is filled in last.
//! Invariant: `combine(crc(a), crc(b), shift(b.len()))` is the CRC of `a` followed by `b`.
//! Leaves the CRC of plain bytes to the `crc32fast` crate.
//!
//! A CRC is a remainder of polynomials over GF(2), bit-reflected: the top bit of a `u32` is x⁰.
//! Appending n bytes multiplies the remainder of what was before by x^(8n), so a record's long tail
//! is summed outside the log's lock and costs one multiplication inside it.

use std::sync::LazyLock;

use crc32fast::Hasher;

/// The polynomial of CRC-32, reflected.
const POLYNOMIAL: u32 = 0xEDB8_8320;
/// x⁰, the one of the multiplication.
const ONE: u32 = 1 << 31;
/// x⁸, the shift by one byte.
const BYTE: u32 = 1 << 23;

/// `SHIFTS[k][n]` is x^(8·n·256^k): the shift by n bytes, by n times 256 bytes and so on.
static SHIFTS: [[u32; 256]; 4] = shifts();

/// A hasher of nothing. To make one asks what the processor can, which takes as long as to sum a short part.
static NOTHING: LazyLock<Hasher> = LazyLock::new(Hasher::new);

/// CRC-32 of `bytes`.
pub fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = NOTHING.clone();
    hasher.update(bytes);
    hasher.finalize()
}

/// The factor by which `bytes` further bytes move a remainder: x^(8·bytes).
pub fn shift(bytes: u32) -> u32 {
    let mut factor = SHIFTS[0][(bytes & 0xFF) as usize];
    for (k, table) in SHIFTS.iter().enumerate().skip(1) {
        let digit = (bytes >> (8 * k)) & 0xFF;
        if digit != 0 {
            factor = multiply(factor, table[digit as usize]);
        }
    }
    factor
}

/// CRC-32 of `front` followed by `tail`, from their sums and `shift` of the tail's length.
pub fn combine(front: u32, tail: u32, shift: u32) -> u32 {
    multiply(shift, front) ^ tail
}

/// Product of two remainders modulo the polynomial, four coefficients of `a` at a time, from the highest on. No branch
/// depends on the values.
const fn multiply(a: u32, b: u32) -> u32 {
    let multiples = multiples(b);
    let mut product = 0;
    let mut digit = 0;
    while digit < 8 {
        let carried = CARRIED[(product & 0xF) as usize];
        product = (product >> 4) ^ carried ^ multiples[(a >> (4 * digit) & 0xF) as usize];
        digit += 1;
    }
    product
}

/// `b` times x⁰ to x³ and their sums, by the four bits that say which.
const fn multiples(b: u32) -> [u32; 16] {
    let mut multiples = [0; 16];
    let (mut bit, mut power) = (8, b);
    while bit > 0 {
        // Every number with this bit and none below it, from the ones with higher bits alone.
        let mut n = bit;
        while n < 16 {
            multiples[n] = multiples[n - bit] ^ power;
            n += 2 * bit;
        }
        power = times_x(power);
        bit /= 2;
    }
    multiples
}

/// What four lowest bits become when a remainder is multiplied by x⁴.
const CARRIED: [u32; 16] = carried();

const fn carried() -> [u32; 16] {
    let mut table = [0; 16];
    let mut n = 0;
    while n < 16 {
        table[n] = times_x(times_x(times_x(times_x(n as u32))));
        n += 1;
    }
    table
}

const fn times_x(remainder: u32) -> u32 {
    (remainder >> 1) ^ (POLYNOMIAL & (remainder & 1).wrapping_neg())
}

const fn shifts() -> [[u32; 256]; 4] {
    let mut tables = [[ONE; 256]; 4];
    let mut step = BYTE;
    let mut k = 0;
    while k < 4 {
        let mut n = 1;
        while n < 256 {
            tables[k][n] = multiply(tables[k][n - 1], step);
            n += 1;
        }
        step = multiply(tables[k][255], step);
        k += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shift_by_large_counts_is_the_product_of_its_parts() {
        for (a, b) in [(1_u32, 255_u32), (255, 1), (70_000, 3), (1 << 24, 1 << 30), (0, 5)] {
            assert_eq!(multiply(shift(a), shift(b)), shift(a + b), "{a} + {b}");
        }
        assert_eq!(shift(0), ONE);
    }

    /// Bit by bit, as the definition has it.
    fn product(a: u32, mut b: u32) -> u32 {
        let mut product = 0;
        for bit in (0..32).rev() {
            product ^= b & (a >> bit & 1).wrapping_neg();
            b = times_x(b);
        }
        product
    }

    #[test]
    fn combine_agrees_with_crc32fast_across_table_borders() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|i| (i * 31 % 251) as u8).collect();
        for tail in [0, 1, 255, 256, 257, 65_535, 65_536, 69_999] {
            let (front, back) = bytes.split_at(bytes.len() - tail);
            let both = combine(checksum(front), checksum(back), shift(tail as u32));
            assert_eq!(both, crc32fast::hash(&bytes), "{tail}");
        }
    }

    proptest! {
        #[test]
        fn product_of_digits_is_that_of_bits(a: u32, b: u32) {
            prop_assert_eq!(multiply(a, b), product(a, b));
        }

        #[test]
        fn combine_is_the_sum_over_both_parts(front: Vec<u8>, tail: Vec<u8>) {
            let whole = [front.clone(), tail.clone()].concat();
            let sum = combine(checksum(&front), checksum(&tail), shift(tail.len() as u32));
            prop_assert_eq!(sum, crc32fast::hash(&whole));
        }
    }
}
