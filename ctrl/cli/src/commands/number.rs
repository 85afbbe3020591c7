//! Whole numbers on the command line, with a sentence about what is none.

/// Parses a whole number from `least` to `most`, for `value_parser`.
pub(super) fn whole<N: TryFrom<u64>>(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse::<u64>().ok();
        let number = number.filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number| N::try_from(number).ok());
        number.ok_or_else(|| {
            if most >= u64::from(u32::MAX) {
                format!("it is not a whole number of {least} or more")
            } else {
                format!("it is not a whole number from {least} to {most}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_or_out_of_bounds_is_said_in_a_sentence() {
        assert_eq!(whole::<u32>(1, 100)("100"), Ok(100));
        for bad in ["0", "101", "-1", "x", "", "1.5", "99999999999999999999"] {
            let said = whole::<u32>(1, 100)(bad).unwrap_err();
            assert_eq!(said, "it is not a whole number from 1 to 100", "{bad}");
        }
        let said = whole::<u64>(1, u64::MAX)("0").unwrap_err();
        assert_eq!(said, "it is not a whole number of 1 or more");
        assert!(whole::<u8>(0, 1000)("256").is_err(), "the type's own bound");
    }
}
