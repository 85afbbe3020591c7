//! What stands in `$(( … ))`: whole numbers, `+ - * / %` and parentheses (POSIX.1-2017, Shell
//! Command Language, section 2.6.4), in 64 bits.

use super::words::is_name;

/// Computes `text`, with `variable` for the names in it.
///
/// # Errors
/// What in it cannot be computed, and the remedy.
pub(super) fn compute(
    text: &str,
    variable: impl Fn(&str) -> Result<i64, String>,
) -> Result<i64, String> {
    let mut machine = Machine::default();
    let mut rest = text.trim_start();
    while let Some(letter) = rest.chars().next() {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            let end = rest
                .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            machine.number(if is_name(word) {
                variable(word)?
            } else {
                number(word)?
            })?;
            rest = after.trim_start();
        } else {
            machine.sign(letter)?;
            rest = rest[letter.len_utf8()..].trim_start();
        }
    }
    machine.finish()
}

/// A number as C writes it: 8, 010 (octal), 0x8.
///
/// # Errors
/// When it is none, or passes 64 bits.
pub(super) fn number(text: &str) -> Result<i64, String> {
    let (digits, base) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    let digits_only = digits.chars().all(|digit| digit.is_digit(base));
    i64::from_str_radix(digits, base)
        .ok()
        .filter(|_| digits_only)
        .ok_or_else(|| match base {
            8 => format!("{text} begins with 0 and so is octal, or no number: write it without"),
            _ => format!("{text} is no whole number of 64 bits: write one"),
        })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Open,
    Minus,
    Plus,
    Binary(char),
}

impl Operator {
    /// Higher ones are computed first.
    fn rank(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Binary('+' | '-') => 1,
            Self::Binary(_) => 2,
            Self::Minus | Self::Plus => 3,
        }
    }
}

/// Two stacks on the heap (Dijkstra's shunting yard): depth costs memory, not the call stack.
#[derive(Default)]
struct Machine {
    numbers: Vec<i64>,
    operators: Vec<Operator>,
    /// Whether an operand has just ended, so that `-` is a difference and not a sign.
    after_operand: bool,
}

impl Machine {
    fn number(&mut self, number: i64) -> Result<(), String> {
        if self.after_operand {
            return Err("two numbers stand side by side: put an operator between them".into());
        }
        self.numbers.push(number);
        self.after_operand = true;
        Ok(())
    }

    fn sign(&mut self, letter: char) -> Result<(), String> {
        match (letter, self.after_operand) {
            ('(', false) => self.operators.push(Operator::Open),
            ('-', false) => self.operators.push(Operator::Minus),
            ('+', false) => self.operators.push(Operator::Plus),
            ('+' | '-' | '*' | '/' | '%', true) => {
                let operator = Operator::Binary(letter);
                self.apply_from(operator.rank())?;
                self.operators.push(operator);
                self.after_operand = false;
            }
            (')', true) => {
                self.apply_from(1)?;
                if self.operators.pop().is_none() {
                    return Err("a ) has no (: remove it".into());
                }
            }
            ('*' | '/' | '%' | '(' | ')', _) => return Err(missing()),
            _ => {
                return Err(format!(
                    "{letter:?} is not understood in $(( )), only numbers, names, + - * / % and \
                     parentheses: write the result"
                ));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<i64, String> {
        if !self.after_operand {
            return Err(missing());
        }
        self.apply_from(1)?;
        match (self.numbers.pop(), self.operators.is_empty()) {
            (Some(result), true) => Ok(result),
            _ => Err("a ( is not closed: close it".into()),
        }
    }

    /// Computes what is waiting and binds at least so tightly.
    fn apply_from(&mut self, rank: u8) -> Result<(), String> {
        while let Some(operator) = self.operators.pop_if(|operator| operator.rank() >= rank) {
            let right = self.numbers.pop().ok_or_else(missing)?;
            let result = match operator {
                Operator::Minus => right.checked_neg(),
                Operator::Plus | Operator::Open => Some(right),
                Operator::Binary(sign) => {
                    let left = self.numbers.pop().ok_or_else(missing)?;
                    if right == 0 && matches!(sign, '/' | '%') {
                        return Err("it divides by 0: write the value that is meant".into());
                    }
                    match sign {
                        '+' => left.checked_add(right),
                        '-' => left.checked_sub(right),
                        '*' => left.checked_mul(right),
                        '/' => left.checked_div(right),
                        _ => left.checked_rem(right),
                    }
                }
            };
            let result = result.ok_or("the result passes 64 bits: write a smaller value")?;
            self.numbers.push(result);
        }
        Ok(())
    }
}

fn missing() -> String {
    "an operator or an operand is missing: complete it".into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<i64, String> {
        compute(text, |name| match name {
            "A" => Ok(7),
            _ => Err(format!("no {name}")),
        })
    }

    #[test]
    fn as_a_shell_computes() {
        for (text, result) in [
            ("1", 1),
            (" 113 + 4 ", 117),
            ("2+3*4-1", 13),
            ("(2+3)*4", 20),
            ("100/7%5", 4),
            ("-2*-3", 6),
            ("- - 2", 2),
            ("2--3", 5),
            ("-(1+A)*+2", -16),
            ("10-3-2", 5),
            ("-7/2", -3),
            ("-7%2", -1),
            ("010+0x10", 24),
            ("((((1))))", 1),
            ("\n1\n+\t1", 2),
        ] {
            assert_eq!(of(text), Ok(result), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_computed() {
        for (text, why) in [
            ("", "missing"),
            ("1 +", "missing"),
            ("* 2", "missing"),
            ("()", "missing"),
            ("1 2", "side by side"),
            ("1(2)", "missing"),
            ("(1", "not closed"),
            ("1)", "no ("),
            ("1/0", "divides by 0"),
            ("5%(3-3)", "divides by 0"),
            ("08", "octal"),
            ("1x", "no whole number"),
            ("9223372036854775808", "no whole number"),
            ("9223372036854775807+1", "64 bits"),
            ("(-9223372036854775807-1)/-1", "64 bits"),
            ("1<<2", "'<'"),
            ("A=2", "'='"),
            ("B", "no B"),
        ] {
            let said = of(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    /// By the straightforward way: a tree that knows its own value.
    fn tree() -> impl Strategy<Value = (String, i64)> {
        let leaf = (0..1000_i64).prop_map(|number| (number.to_string(), number));
        leaf.prop_recursive(6, 40, 2, |inner| {
            (inner.clone(), "[-+*/%]", inner).prop_filter_map("no result", |(left, sign, right)| {
                let result = match sign.as_str() {
                    "+" => left.1.checked_add(right.1),
                    "-" => left.1.checked_sub(right.1),
                    "*" => left.1.checked_mul(right.1),
                    "/" => left.1.checked_div(right.1),
                    _ => left.1.checked_rem(right.1),
                }?;
                Some((format!("({} {sign} {})", left.0, right.0), result))
            })
        })
    }

    proptest! {
        #[test]
        fn trees((text, result) in tree()) {
            prop_assert_eq!(of(&text), Ok(result));
        }

        #[test]
        fn any_text_has_an_answer(text in "[-+*/%()0-9A ]{0,200}") {
            let _ = of(&text);
        }
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = 1_000_000;
        assert_eq!(of(&("(".repeat(deep) + "1" + &")".repeat(deep))), Ok(1));
        assert_eq!(of(&("-".repeat(deep) + "1")), Ok(1));
    }
}
