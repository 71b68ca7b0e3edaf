//! Quantities of Kubernetes: `500m`, `1.5`, `10Gi`, `1e3`.
//! Invariant: exact down to a thousandth; a text that is no quantity has no value, and none is guessed.
//! Leaves which quantities are allowed to the schema of each kind.

/// Value in thousandths, rounded up as Kubernetes does; `None` for what is no quantity or too large.
pub fn thousandths(text: &str) -> Option<i128> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')));
    let (number, suffix) = text.split_at(split.unwrap_or(text.len()));
    let (numerator, denominator) = scale(suffix)?;
    let (value, decimals) = decimal(number)?;
    let above = value.checked_mul(numerator)?.checked_mul(1000)?;
    let below = denominator.checked_mul(10i128.checked_pow(decimals)?)?;
    Some(above.div_euclid(below) + i128::from(above.rem_euclid(below) != 0))
}

/// Value in whole units, rounded up; for sizes in bytes.
pub fn units(text: &str) -> Option<u64> {
    let thousandths = thousandths(text)?;
    let units = thousandths.div_euclid(1000) + i128::from(thousandths.rem_euclid(1000) != 0);
    u64::try_from(units).ok()
}

/// Whether both are quantities of the same value.
pub fn equal(a: &str, b: &str) -> bool {
    thousandths(a).is_some_and(|value| thousandths(b) == Some(value))
}

/// Factor of a suffix, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1 << (10 * power), 1));
    let decimal = |power: u32| Some((10i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => exponent(suffix),
    }
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let factor = 10i128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, factor) } else { (factor, 1) })
}

/// A decimal number as an integer and how many of its digits stand after the point.
fn decimal(number: &str) -> Option<(i128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction_is_digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !fraction_is_digits || !number.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    Some((digits.parse().ok()?, fraction.len().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_same_value_are_equal() {
        for (a, b) in [
            ("0.5", "500m"),
            ("1", "1000m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            (".5", "0.5"),
            ("1E", "1e18"),
            ("0.0001", "1m"),
        ] {
            assert!(equal(a, b), "{a} {b}");
        }
        assert_eq!(units("10Gi"), Some(10 << 30));
        assert_eq!(units("1m"), Some(1));
    }

    #[test]
    fn what_is_no_quantity_has_no_value() {
        for text in
            ["", "Gi", "x", "1x", "1..2", ".", "--1", "1e", "1e99", "99999999999999999999999999Ei"]
        {
            assert_eq!(thousandths(text), None, "{text}");
        }
        assert_eq!(units("-1"), None);
    }
}
