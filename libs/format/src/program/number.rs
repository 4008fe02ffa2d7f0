//! Decimal arithmetic, so that 1824 × 0.1 is 182.4 and not 182.4000000001.
//!
//! Raw values and the numbers of a format are decimals of a few digits. Their products and sums are computed
//! exactly and rounded half away from zero. Numbers that are too large or too precise are computed in
//! doubles.

use std::io::Write;

/// `mantissa` × 10^`exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    mantissa: i128,
    exponent: i32,
}

/// The most digits of a mantissa. More could overflow when scaled.
const MAX_DIGITS: u32 = 30;

/// The largest absolute exponent of exact arithmetic; numbers beyond are computed in doubles.
const MAX_EXPONENT: i32 = 60;

/// The most decimals that are written without an exponent.
const MAX_DECIMALS: i32 = 40;

/// The significant digits of a double. Further digits of an exact product are noise of the factors.
const DOUBLE_DIGITS: u32 = 17;

/// The conversion of a raw number to the value that clients get.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct NumberRule {
    scale: Option<Factor>,
    offset: Option<Factor>,
    decimals: Option<u8>,
}

/// A number of the format, as decimal and as double.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Factor {
    exact: Option<Decimal>,
    double: f64,
}

impl Factor {
    fn new(double: f64) -> Self {
        Self { exact: Shortest::of(double).decimal(), double }
    }
}

impl NumberRule {
    pub(super) fn new(scale: Option<f64>, offset: Option<f64>, decimals: Option<u8>) -> Self {
        Self { scale: scale.map(Factor::new), offset: offset.map(Factor::new), decimals }
    }

    /// Appends the converted JSON number `raw` to `out`. Returns `false`, and appends nothing, if it isn't
    /// finite.
    pub(super) fn write(&self, raw: &str, out: &mut Vec<u8>) -> bool {
        let computed = self.scale.is_some() || self.offset.is_some();
        if !computed && raw.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            return write_integer(raw, out);
        }
        let exact = Decimal::parse(raw).and_then(|raw| self.exact(raw));
        if let Some(exact) = exact
            && exact.write(if computed { DOUBLE_DIGITS } else { MAX_DIGITS }, out)
        {
            return true;
        }
        let Ok(raw) = raw.parse::<f64>() else { return false };
        let scaled = raw * self.scale.map_or(1.0, |scale| scale.double);
        write_double(scaled + self.offset.map_or(0.0, |offset| offset.double), self.decimals, out)
    }

    fn exact(&self, raw: Decimal) -> Option<Decimal> {
        let mut value = raw;
        if let Some(scale) = self.scale {
            value = value.times(scale.exact?)?;
        }
        if let Some(offset) = self.offset {
            value = value.plus(offset.exact?)?;
        }
        Some(value.rounded(self.decimals))
    }
}

/// Appends an integer with all its digits, however many there are. Returns `false`, and appends nothing, if
/// it isn't finite as a double.
fn write_integer(raw: &str, out: &mut Vec<u8>) -> bool {
    // The largest double has 309 digits.
    if raw.len() > 300 && !raw.parse::<f64>().is_ok_and(f64::is_finite) {
        return false;
    }
    out.extend_from_slice(if raw == "-0" { b"0" } else { raw.as_bytes() });
    true
}

/// Appends a double, rounded to `decimals`. Returns `false`, and appends nothing, if it isn't finite.
pub(super) fn write_double(value: f64, decimals: Option<u8>, out: &mut Vec<u8>) -> bool {
    if !value.is_finite() {
        return false;
    }
    let shortest = Shortest::of(value);
    let exact = shortest.decimal().map(|value| value.rounded(decimals));
    if exact.is_some_and(|exact| exact.write(DOUBLE_DIGITS, out)) {
        return true;
    }
    // Only very large and very small numbers are left. The large have no decimals; the small round to zero.
    if decimals.is_some() && value.abs() < 1.0 {
        out.push(b'0');
    } else {
        out.extend_from_slice(shortest.text().as_bytes());
    }
    true
}

/// The shortest text that round-trips a double, such as `1.824e2`: a JSON number, without allocation.
struct Shortest {
    text: [u8; 32],
    length: usize,
}

impl Shortest {
    fn of(value: f64) -> Self {
        let mut text = [0; 32];
        let mut rest = &mut text[..];
        // A double needs at most 17 digits, a sign, a point and an exponent of five characters.
        let written = write!(rest, "{value:e}").map_or(0, |()| 32 - rest.len());
        Self { text, length: written }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }

    fn decimal(&self) -> Option<Decimal> {
        Decimal::parse(self.text())
    }
}

impl Decimal {
    /// Parses a JSON number. `None` if it has too many digits or too large an exponent for exact arithmetic.
    fn parse(text: &str) -> Option<Self> {
        let mut mantissa: i128 = 0;
        let mut digits = 0;
        let mut exponent: i32 = 0;
        let mut fraction = false;
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'0'..=b'9' => {
                    mantissa = mantissa * 10 + i128::from(byte - b'0');
                    digits += u32::from(mantissa != 0);
                    exponent -= i32::from(fraction);
                    if digits > MAX_DIGITS || exponent < -MAX_EXPONENT {
                        return None;
                    }
                }
                b'.' => fraction = true,
                b'e' | b'E' => {
                    exponent += text
                        .get(text.len() - bytes.len()..)?
                        .parse::<i32>()
                        .ok()
                        .filter(|e| e.abs() < 1_000)?;
                    break;
                }
                // The sign, which is handled below.
                _ => {}
            }
        }
        let mantissa = if text.starts_with('-') { -mantissa } else { mantissa };
        let zero = mantissa == 0;
        let value = Self { mantissa, exponent: if zero { 0 } else { exponent } };
        (value.exponent.abs() <= MAX_EXPONENT).then_some(value)
    }

    fn times(self, other: Self) -> Option<Self> {
        let mantissa = self.mantissa.checked_mul(other.mantissa)?;
        Some(Self { mantissa, exponent: self.exponent + other.exponent })
    }

    fn plus(self, other: Self) -> Option<Self> {
        let exponent = self.exponent.min(other.exponent);
        let aligned =
            |value: Self| value.mantissa.checked_mul(power_of_ten(value.exponent.abs_diff(exponent))?);
        Some(Self { mantissa: aligned(self)?.checked_add(aligned(other)?)?, exponent })
    }

    /// Rounds to `decimals`, half away from zero.
    fn rounded(self, decimals: Option<u8>) -> Self {
        let Some(decimals) = decimals else { return self };
        let exponent = -i32::from(decimals);
        if self.exponent >= exponent {
            return self;
        }
        // A divisor that doesn't fit is more than twice any mantissa, so the result is zero.
        let mantissa = power_of_ten(self.exponent.abs_diff(exponent)).map_or(0, |divisor| {
            let (quotient, rest) = (self.mantissa / divisor, self.mantissa % divisor);
            let up = rest.abs() >= divisor / 2;
            quotient + if up { self.mantissa.signum() } else { 0 }
        });
        Self { mantissa, exponent }
    }

    /// Appends the number without an exponent and without trailing zeros. Returns `false`, and appends
    /// nothing, if it has more than `max_digits` digits.
    fn write(self, max_digits: u32, out: &mut Vec<u8>) -> bool {
        let Self { mut mantissa, mut exponent } = self;
        while mantissa % 10 == 0 && exponent < 0 && mantissa != 0 {
            mantissa /= 10;
            exponent += 1;
        }
        if mantissa == 0 {
            out.push(b'0');
            return true;
        }
        let fits = |mantissa: i128| power_of_ten(max_digits).is_none_or(|limit| mantissa.abs() < limit);
        if !fits(mantissa) || exponent < -MAX_DECIMALS {
            return false;
        }
        if exponent > 0 {
            let expanded =
                power_of_ten(exponent.unsigned_abs()).and_then(|power| mantissa.checked_mul(power));
            let Some(expanded) = expanded.filter(|&expanded| fits(expanded)) else { return false };
            (mantissa, exponent) = (expanded, 0);
        }
        if mantissa < 0 {
            out.push(b'-');
        }
        write_fixed(mantissa.unsigned_abs(), exponent.unsigned_abs() as usize, out);
        true
    }
}

/// Appends `mantissa` with a decimal point before its last `decimals` digits.
fn write_fixed(mantissa: u128, decimals: usize, out: &mut Vec<u8>) {
    // 39 digits of a u128, a point, and zeros up to `MAX_DECIMALS`.
    let mut text = [b'0'; 96];
    let mut at = text.len();
    let mut rest = mantissa;
    let mut written = 0;
    while rest != 0 || written <= decimals {
        if written == decimals && decimals != 0 {
            at -= 1;
            text[at] = b'.';
        }
        at -= 1;
        // Division of 128 bits is slow and rarely needed.
        let digit = if let Ok(small) = u64::try_from(rest) {
            rest = u128::from(small / 10);
            u128::from(small % 10)
        } else {
            let digit = rest % 10;
            rest /= 10;
            digit
        };
        text[at] = b'0' + u8::try_from(digit).unwrap_or(0);
        written += 1;
    }
    out.extend_from_slice(&text[at..]);
}

fn power_of_ten(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}
