//! How a device says that its upgrade goes, in the forms of the vendors.

use serde_json::Value;

/// How far an upgrade is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It goes on; or its end shows in the version that the device reports.
    Going,
    Done,
    /// The device has given up: its code, and its own words.
    Failed {
        code: String,
        words: String,
    },
}

/// Reads a report of progress; `None` if it is none.
///
/// Huawei's is `{"result_code", "progress"?, "description"?}`: 0 is well, 100 the end. Aliyun's is
/// `{"params": {"step", "desc"?}}`, where a step below 0 is a failure and the end shows in the version. Tencent's is
/// `{"report": {"progress": {"state", "result_code"?, "result_msg"?}}}`, which ends as `done` or `fail`.
#[must_use]
pub fn read(payload: &[u8]) -> Option<Progress> {
    let told: Value = serde_json::from_slice(payload).ok()?;
    let words = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
    if let Some(progress) = told.pointer("/report/progress") {
        return Some(match progress["state"].as_str()? {
            "done" => Progress::Done,
            "fail" => {
                let code = number(&progress["result_code"]).map_or_else(String::new, |code| code.to_string());
                Progress::Failed { code, words: words(progress, "result_msg") }
            }
            _ => Progress::Going,
        });
    }
    if let Some(params) = told.get("params") {
        return Some(match number(&params["step"])? {
            step if step < 0 => Progress::Failed { code: step.to_string(), words: words(params, "desc") },
            _ => Progress::Going,
        });
    }
    Some(match number(&told["result_code"])? {
        0 if number(&told["progress"]) == Some(100) => Progress::Done,
        0 => Progress::Going,
        code => Progress::Failed { code: code.to_string(), words: words(&told, "description") },
    })
}

/// A whole number, also as text.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: &str, words: &str) -> Option<Progress> {
        Some(Progress::Failed { code: code.into(), words: words.into() })
    }

    #[test]
    fn every_vendors_report_is_read() {
        for (payload, wanted) in [
            (r#"{"result_code": 0, "progress": 50, "version": "2"}"#, Some(Progress::Going)),
            (r#"{"result_code": 0}"#, Some(Progress::Going)),
            (r#"{"result_code": 0, "progress": 100, "description": null}"#, Some(Progress::Done)),
            (r#"{"result_code": "6", "progress": 20, "description": "timeout"}"#, failed("6", "timeout")),
            (r#"{"id": "1", "params": {"step": "100", "desc": ""}}"#, Some(Progress::Going)),
            (r#"{"id": "1", "params": {"step": -2, "desc": "download"}}"#, failed("-2", "download")),
            (r#"{"type": "report_progress", "report": {"progress": {"state": "downloading"}}}"#, Some(Progress::Going)),
            (r#"{"report": {"progress": {"state": "done"}}}"#, Some(Progress::Done)),
            (
                r#"{"report": {"progress": {"state": "fail", "result_code": "-4", "result_msg": "md5"}}}"#,
                failed("-4", "md5"),
            ),
            ("{}", None),
            ("[1]", None),
            ("\"x\"", None),
            ("no JSON", None),
            (r#"{"params": {"step": "x"}}"#, None),
            (r#"{"report": {"progress": {"state": 1}}}"#, None),
        ] {
            assert_eq!(read(payload.as_bytes()), wanted, "{payload}");
        }
    }
}
