use dotfour_protocol::Reply;
use proptest::prelude::*;

use super::*;

const FAILED: &str =
    r#"{"failed":{"code":11,"cause":"pool-exhausted","message":"none is \"free\"","next_step":"wait"}}"#;

fn read(reply: &str) -> Result<Answer, String> {
    Answer::read(reply.into())
}

fn reply() -> impl Strategy<Value = Reply> {
    let failed = (any::<u32>(), ".*", ".*", ".*")
        .prop_map(|(code, cause, message, next_step)| Reply::Failed(Failure { code, cause, message, next_step }));
    let printed = ".*".prop_map(|middle| Reply::Printed(format!("{{\"cniVersion\":{middle}\"dns\":{{}}}}\n")));
    prop_oneof![
        printed,
        failed,
        Just(Reply::Detached),
        Just(Reply::Checked),
        Just(Reply::Collected),
        Just(Reply::Ready)
    ]
}

proptest! {
    #[test]
    fn what_the_daemon_writes_is_read(reply in reply()) {
        let answer = Answer::read(frame::encode_reply(&reply).unwrap().into_owned()).unwrap();
        prop_assert_eq!(answer, match reply {
            Reply::Printed(result) => Answer::Printed(result.into_bytes()),
            Reply::Failed(failure) => Answer::Failed(failure),
            Reply::Detached => Answer::Detached,
            Reply::Checked => Answer::Checked,
            Reply::Collected => Answer::Collected,
            Reply::Ready => Answer::Ready,
            Reply::Attached(_) | Reply::Assigned(_) | Reply::Status(_) => unreachable!("not made above"),
        });
    }

    #[test]
    fn what_is_taken_the_protocol_would_take_as_well(
        at in 0..FAILED.len(), length in 0..8_usize, with in "[\"{}0-9a-z.:/,]{0,4}",
    ) {
        let mut text = FAILED.to_owned();
        text.replace_range(at..(at + length).min(FAILED.len()), &with);
        if read(&text).is_ok() {
            // The derived reader refuses what comes twice; only a mutation makes that.
            let read = frame::decode_reply(text.as_bytes());
            let twice = |failure: &Failure| failure.message.contains("duplicate field");
            prop_assert!(read.is_ok() || read.as_ref().is_err_and(twice), "{:?} of {}", read, text);
        }
    }
}

#[test]
fn members_of_a_later_version_are_passed_by() {
    let later =
        FAILED.replace("\"code\"", "\"where\":{\"n\":4},\"code\"").replace("{\"failed", "{\"since\":2,\"failed");
    assert_eq!(read(&later), read(FAILED));
    assert!(matches!(read(FAILED), Ok(Answer::Failed(_))));
}

#[test]
fn half_a_result_is_none() {
    let whole = "{\"cniVersion\":\"1.1.0\",\"ips\":[],\"dns\":{}}\n";
    assert_eq!(read(whole), Ok(Answer::Printed(whole.into())));
    for end in 0..whole.len() {
        assert!(read(&whole[..end]).is_err(), "{}", &whole[..end]);
    }
}

#[test]
fn what_is_no_answer_is_refused_and_named() {
    for (reply, says) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("null", "invalid type"),
        ("\"failed\"", "invalid type"),
        ("{}", "it is neither a result nor a failure"),
        ("{\"cniVersion\":\"1.1.0\"}\n", "it is neither a result nor a failure"),
        (r#"{"failed":7}"#, "failed must be an object"),
        (r#"{"failed":{"code":7}}"#, "it has no cause"),
        (r#"{"failed":{"code":"7"}}"#, "code must be a whole number"),
        (r#"{"failed":{"code":-1}}"#, "code must be a whole number"),
        (r#"{"failed":{"code":7,"cause":[]}}"#, "cause must be a string"),
        (r#"{"failed":{"code":7,"cause":null}}"#, "it has no cause"),
    ] {
        let fault = read(reply).unwrap_err();
        assert!(fault.contains(says), "{reply}: {fault}");
    }
}

#[test]
fn a_reply_to_somebody_else_is_refused() {
    for reply in [r#"{"status":{"version":"1"}}"#, r#"{"attached":{}}"#, r#"{"assigned":{"addresses":[]}}"#] {
        assert!(read(reply).is_err(), "{reply}");
    }
}
