//! The sentences of extcap's protocol: `word {key=value}{key=value}…`, one on each line.

use super::ALL;
use api::CableReport;

/// Answer to `--extcap-dlts`.
pub(super) const DLTS: &str = "dlt {number=1}{name=EN10MB}{display=Ethernet}\n";

/// Answer to `--extcap-interfaces`.
pub(super) fn interfaces(cables: &[CableReport]) -> String {
    let mut text = format!(
        "extcap {{version={}}}{{display=ikv-fabric}}\n",
        env!("CARGO_PKG_VERSION")
    );
    if cables.is_empty() {
        return text;
    }
    text += &format!("interface {{value={ALL}}}{{display=every cable of ikv-fabric}}\n");
    for cable in cables {
        let [there, back] = &cable.lanes;
        text += &format!(
            "interface {{value={}}}{{display=ikv-fabric cable, {} - {}}}\n",
            plain(&cable.name),
            plain(&there.from),
            plain(&back.from)
        );
    }
    text
}

/// Answer to `--extcap-config`. `ends` are the cable's ports; `None` for all cables together.
pub(super) fn config(ends: Option<&[String; 2]>) -> String {
    let mut text = String::from(
        "arg {number=0}{call=--wire}{display=As they leave}\
         {tooltip=Frames as they leave the cable, not as they enter it: without those that were \
         dropped, at the time of their release}{type=boolflag}{default=false}\n\
         arg {number=1}{call=--segment}{display=As on a wire}\
         {tooltip=Cut super-frames and finish checksums, as a wire would carry them}\
         {type=boolflag}{default=false}\n",
    );
    if let Some(ends) = ends {
        text += "arg {number=2}{call=--from}{display=Only frames that enter at}\
                 {tooltip=One direction of the cable}{type=selector}{required=false}\n\
                 value {arg=2}{value=}{display=either port}{default=true}\n";
        for end in ends {
            let end = plain(end);
            text += &format!("value {{arg=2}}{{value={end}}}{{display={end}}}{{default=false}}\n");
        }
    }
    text
}

/// Removes the characters that would end a value.
fn plain(value: &str) -> String {
    value.replace(['{', '}'], "_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cable() -> CableReport {
        let lane = |from: &str, to: &str| {
            json!({
                "from": from, "to": to, "frames_in": 0, "bytes_in": 0, "frames_out": 0, "held": 0,
                "drops": {},
            })
        };
        let lanes = [lane("ikst12", "iklt{1}"), lane("iklt{1}", "ikst12")];
        let report = json!({ "name": "iksb12", "state": "up", "lanes": lanes });
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn every_cable_is_an_interface_and_so_are_all() {
        let version = env!("CARGO_PKG_VERSION");
        let head = format!("extcap {{version={version}}}{{display=ikv-fabric}}\n");
        assert_eq!(interfaces(&[]), head);
        assert_eq!(
            interfaces(&[cable()]),
            head + "interface {value=ikv-fabric}{display=every cable of ikv-fabric}\n\
                    interface {value=iksb12}{display=ikv-fabric cable, ikst12 - iklt_1_}\n"
        );
    }

    #[test]
    fn a_direction_can_be_chosen_for_one_cable() {
        assert!(!config(None).contains("--from"));
        let ends = ["ikst12".to_owned(), "iklt11".to_owned()];
        let said = config(Some(&ends));
        assert!(said.ends_with("value {arg=2}{value=iklt11}{display=iklt11}{default=false}\n"));
        assert!(
            said.lines()
                .all(|line| line.starts_with("arg {") || line.starts_with("value {"))
        );
    }
}
