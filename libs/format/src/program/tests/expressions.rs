use super::apply::{alone, values};
use super::*;

#[test]
fn computed_fields_have_the_results_of_their_expressions() {
    let raw = "{name: good, pointer: /good, type: Number}, {name: total, pointer: /total, type: Number}, \
               {name: text, pointer: /text, type: String}, {name: on, pointer: /on, type: Bool}";
    let payload = r#"{"good":123,"total":130,"text":"say \"hé\"","on":true}"#;
    for (expression, expected) in [
        ("values.good / values.total", "0.9461538461538461"),
        ("values.total - values.good", "7"),
        ("values.total * 2", "260"),
        ("2 * values.total + 1u", "261"),
        ("(values.good + values.total) / 2", "126.5"),
        ("-values.good", "-123"),
        ("values.total % 4", "2"),
        ("values.total > values.good", "true"),
        ("values.total >= 130 && values.on", "true"),
        ("values['good'] == 123", "true"),
        ("values.good == 123.0 ? 'full' : 'part'", r#""full""#),
        ("values.text", r#""say \"hé\"""#),
        ("values.text + '!'", r#""say \"hé\"!""#),
        ("size(values.text) + 1", "9"),
        ("values.text.size()", "8"),
        ("values.text.startsWith('say')", "true"),
        ("values.text.contains('x') || values.text.endsWith('\"')", "true"),
        ("!values.on", "false"),
        ("values.text in ['a', 'b']", "false"),
        ("values.good in [1, 123]", "true"),
        ("has(values.good)", "true"),
        ("int(values.good / 10)", "12"),
        ("double('1.5') + 1", "2.5"),
        ("string(values.good) + ' m'", r#""123 m""#),
        ("math.round(values.good / 10)", "12"),
        ("math.abs(-values.good)", "123"),
        ("math.floor(1.5) + math.ceil(1.5) + math.trunc(1.5) + math.sign(2) + math.sqrt(4)", "7"),
        ("math.greatest(values.good, values.total)", "130"),
        ("math.least(values.good, values.total, 5)", "5"),
        ("math.least(7, values.good)", "7"),
        ("bool('true')", "true"),
        ("null", "null"),
    ] {
        let fields =
            format!("{raw}, {{name: x, expression: {}}}", serde_json::to_string(expression).unwrap());
        let result = values(&fields, payload);
        let (_, x) = result.split_once(r#""x":"#).unwrap_or_else(|| panic!("{expression}: {result}"));
        assert_eq!(x, format!("{expected}}}"), "{expression}");
    }
}

#[test]
fn computed_numbers_are_rounded() {
    let fields = "{name: a, pointer: /a, type: Number}, {name: x, expression: values.a / 3.0, decimals: 2}";
    assert_eq!(values(fields, r#"{"a":2}"#), r#"{"a":2,"x":0.67}"#);
    assert_eq!(values(fields, r#"{"a":0}"#), r#"{"a":0,"x":0}"#);
}

#[test]
fn computed_fields_may_use_computed_fields() {
    let fields = "{name: a, pointer: /a, type: Number}, {name: b, expression: values.a * 2}, \
                  {name: c, expression: values.b + values.a}";
    assert_eq!(values(fields, r#"{"a":2}"#), r#"{"a":2,"b":4,"c":6}"#);
}

#[test]
fn fields_that_can_not_be_computed_are_left_out_and_counted() {
    let raw = "{name: a, pointer: /a, type: Number}, {name: b, pointer: /b, type: Number}, \
               {name: t, pointer: /t, type: String}";
    for (expression, payload) in [
        ("values.a / values.b", r#"{"a":1,"b":0}"#),
        ("values.a / values.b", r#"{"a":0,"b":0}"#),
        ("values.a / values.b", r#"{"a":1}"#),
        ("values.a / values.b", r#"{"a":1,"b":null}"#),
        ("values.a % values.b", r#"{"a":1,"b":0}"#),
        ("values.a + values.t", r#"{"a":1,"t":"x"}"#),
        ("values.a * 1e308 * 1e308", r#"{"a":1}"#),
        ("double(values.t)", r#"{"t":"NaN"}"#),
        ("int(values.a)", r#"{"a":1e300}"#),
        ("values.a > 'x'", r#"{"a":1}"#),
        ("values.a ? 1 : 2", r#"{"a":1}"#),
        ("math.sqrt(values.a)", r#"{"a":-1}"#),
    ] {
        let fields =
            format!("{raw}, {{name: x, expression: {}}}", serde_json::to_string(expression).unwrap());
        let (values, skipped) = alone(&fields, payload).unwrap();
        assert!(skipped == 1 && !values.contains(r#""x":"#), "{expression}: {values}, {skipped} skipped");
    }
    let long = format!("{raw}, {{name: x, expression: values.t + values.t}}");
    assert_eq!(alone(&long, format!(r#"{{"t":"{}"}}"#, "x".repeat(2049))).unwrap().1, 1);
}

#[test]
fn has_is_true_for_present_fields() {
    let fields = "{name: a, pointer: /a, type: Number}, {name: b, pointer: /b, type: Number}, \
                  {name: x, expression: 'has(values.b) ? values.b : values.a'}";
    assert_eq!(values(fields, r#"{"a":1,"b":2}"#), r#"{"a":1,"b":2,"x":2}"#);
    assert_eq!(values(fields, r#"{"a":1}"#), r#"{"a":1,"x":1}"#);
}

#[test]
fn the_deepest_expression_is_evaluated_on_a_small_stack() {
    let expressions = [
        format!("{}1", "1 + ".repeat(63)),
        format!("{}true", "true && ".repeat(60)),
        format!("{}1{}", "(1 + ".repeat(23), ")".repeat(23)),
        format!("{}1", "true ? 1 : ".repeat(23)),
        format!("{}1{}", "math.abs(".repeat(23), ")".repeat(23)),
        format!("{}9{}", "9 + (".repeat(10), ")".repeat(10)),
    ];
    for expression in expressions {
        let fields = format!("{{name: x, expression: '{expression}'}}");
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        let result = thread.spawn(move || alone(&fields, r#"{"x":1}"#)).unwrap().join().unwrap();
        assert!(result.is_ok_and(|(_, skipped)| skipped == 0), "{expression}");
    }
}

#[test]
fn messages_are_pushed_only_if_when_is_true() {
    let mut channel = Channel::new(
        "{codec: JSON, when: values.speed > 0, fields: [{name: speed, pointer: /v, type: Number}, \
         {name: x, pointer: /x, type: Number}]}",
    );
    for (at, (payload, expected)) in [
        (r#"{"v":1}"#, Ok(r#"{"speed":1}"#.to_owned())),
        (r#"{"v":0}"#, Err(DropReason::Filtered)),
        // It can't be evaluated.
        (r#"{"x":1}"#, Err(DropReason::Filtered)),
        (r#"{"v":null}"#, Err(DropReason::Filtered)),
        (r#"{"v":2}"#, Ok(r#"{"speed":2}"#.to_owned())),
    ]
    .into_iter()
    .enumerate()
    {
        channel.stored_at = Timestamp(i64::try_from(at).unwrap());
        assert_eq!(channel.apply(payload), expected, "{payload}");
    }
    // What isn't a boolean isn't true.
    let mut channel =
        Channel::new("{codec: JSON, when: values.x, fields: [{name: x, pointer: /x, type: Number}]}");
    assert_eq!(channel.apply(r#"{"x":1}"#), Err(DropReason::Filtered));
}

#[test]
fn a_filtered_message_does_not_count_as_pushed() {
    let mut channel = Channel::new(
        "{codec: JSON, when: values.ok, fields: [{name: x, pointer: /x, type: Number, onChange: true}, \
         {name: ok, pointer: /ok, type: Bool, onChange: true}]}",
    );
    let mut step = |at, payload: &str| {
        channel.stored_at = Timestamp(at);
        channel.apply(payload)
    };
    assert!(step(0, r#"{"x":1,"ok":true}"#).is_ok());
    assert_eq!(step(1, r#"{"x":2,"ok":false}"#), Err(DropReason::Filtered));
    assert_eq!(step(2, r#"{"x":1,"ok":true}"#), Err(DropReason::Unchanged));
}
