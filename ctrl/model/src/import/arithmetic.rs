//! Shell arithmetic, `$(( … ))`: 64-bit whole numbers, `+ - * / %` and parentheses (POSIX.1-2017,
//! Shell Command Language, section 2.6.4).

use super::words::{is_name, name_length};

/// Evaluates `expression`; `variable` looks up the names in it.
///
/// # Errors
/// What cannot be evaluated, and what to write instead.
pub(super) fn evaluate(
    expression: &str,
    mut variable: impl FnMut(&str) -> Result<i64, String>,
) -> Result<i64, String> {
    let mut evaluator = Evaluator::default();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let operand_end = name_length(rest);
        let (token, after) = rest.split_at(operand_end.max(first.len_utf8()));
        if operand_end == 0 {
            evaluator.operator(first)?;
        } else if is_name(token) {
            evaluator.operand(variable(token)?)?;
        } else {
            evaluator.operand(number(token)?)?;
        }
        rest = after.trim_start();
    }
    evaluator.finish()
}

/// A number as C writes it: 8, 010 (octal), 0x8.
///
/// # Errors
/// When it is not a number, or does not fit 64 bits.
pub(super) fn number(text: &str) -> Result<i64, String> {
    let (digits, base) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    // `from_str_radix` would also take a sign.
    let only_digits = digits.chars().all(|digit| digit.is_digit(base));
    let number = i64::from_str_radix(digits, base).ok();
    number.filter(|_| only_digits).ok_or_else(|| match base {
        8 => format!("{text} begins with 0, which makes it octal: write it without the 0"),
        _ => format!("{text} is not a whole number of 64 bits: write one"),
    })
}

/// Dijkstra's shunting yard. Its two stacks are on the heap, so that an expression of many
/// parentheses cannot overflow the call stack.
#[derive(Default)]
struct Evaluator {
    operands: Vec<i64>,
    /// Operators that wait for their right operand, and their rank: higher ones bind tighter,
    /// `(` has rank 0.
    operators: Vec<(u8, char)>,
    /// Whether an operand has just ended, so that `-` subtracts and does not negate.
    after_operand: bool,
}

impl Evaluator {
    fn operand(&mut self, operand: i64) -> Result<(), String> {
        if self.after_operand {
            return Err("two numbers stand side by side: put an operator between them".into());
        }
        self.operands.push(operand);
        self.after_operand = true;
        Ok(())
    }

    fn operator(&mut self, sign: char) -> Result<(), String> {
        match (sign, self.after_operand) {
            ('(', false) => self.operators.push((0, sign)),
            ('+', false) => {}
            // -x is 0 - x that binds tighter than a product.
            ('-', false) => {
                self.operands.push(0);
                self.operators.push((3, sign));
            }
            ('+' | '-' | '*' | '/' | '%', true) => {
                let rank = if matches!(sign, '+' | '-') { 1 } else { 2 };
                self.reduce(rank)?;
                self.operators.push((rank, sign));
                self.after_operand = false;
            }
            (')', true) => {
                self.reduce(1)?;
                self.operators.pop().ok_or("a ) has no (: remove it")?;
            }
            ('*' | '/' | '%' | '(' | ')', _) => return Err(MISSING.into()),
            _ => {
                return Err(format!(
                    "{sign:?} is not understood in $(( )), only numbers, names, + - * / % and \
                     parentheses: write the result"
                ));
            }
        }
        Ok(())
    }

    /// Computes the waiting operators of at least this rank.
    fn reduce(&mut self, rank: u8) -> Result<(), String> {
        while let Some((_, sign)) = self.operators.pop_if(|(waiting, _)| *waiting >= rank) {
            let right = self.operands.pop().ok_or(MISSING)?;
            let left = self.operands.pop().ok_or(MISSING)?;
            let result = match sign {
                '/' | '%' if right == 0 => {
                    return Err("it divides by 0: write the value that is meant".into());
                }
                '+' => left.checked_add(right),
                '-' => left.checked_sub(right),
                '*' => left.checked_mul(right),
                '/' => left.checked_div(right),
                _ => left.checked_rem(right),
            };
            let result = result.ok_or("the result does not fit 64 bits: write a smaller value")?;
            self.operands.push(result);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<i64, String> {
        if !self.after_operand {
            return Err(MISSING.into());
        }
        self.reduce(1)?;
        match (self.operands.pop(), self.operators.is_empty()) {
            (Some(result), true) => Ok(result),
            _ => Err("a ( is not closed: close it".into()),
        }
    }
}

const MISSING: &str = "an operator or an operand is missing: complete it";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<i64, String> {
        evaluate(text, |name| match name {
            "A" => Ok(7),
            _ => Err(format!("no {name}")),
        })
    }

    #[test]
    fn evaluates_as_a_shell_does() {
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
    fn refuses_with_the_reason() {
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
            ("1x", "not a whole number"),
            ("9223372036854775808", "not a whole number"),
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

    /// Expressions with their values, computed by another way: a tree whose nodes know theirs.
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
        fn nested_expressions((text, result) in tree()) {
            prop_assert_eq!(of(&text), Ok(result));
        }

        #[test]
        fn answers_any_text(text in "[-+*/%()0-9A ]{0,200}") {
            let _ = of(&text);
        }
    }

    #[test]
    fn depth_does_not_overflow_the_stack() {
        let deep = 1_000_000;
        assert_eq!(of(&("(".repeat(deep) + "1" + &")".repeat(deep))), Ok(1));
        assert_eq!(of(&("-".repeat(deep) + "1")), Ok(1));
    }
}
