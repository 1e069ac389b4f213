use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::network::Network;

const SAMPLE: &str = "\
# a comment
listen: 127.0.0.1
workers: 4
verbose: false
targets:
  - name: ssh
    ports: [22, 2222]
  - name: web
    ports:
      - 443
policy:
  denied:
    - 198.51.100.0/24
    - 2001:db8::/32
  widest: 24
";

#[derive(Debug, PartialEq, Eq)]
struct Sample {
    listen: IpAddr,
    workers: u8,
    verbose: bool,
    targets: Vec<(String, Vec<u16>)>,
    denied: Vec<Network>,
    widest: Option<u8>,
}

fn sample(text_of: &str) -> Result<Sample, Vec<Mistake>> {
    read(text_of, |reader| {
        let listen = reader.required("listen", text);
        let workers = reader.required("workers", number_in(1..=64));
        let verbose = reader.optional("verbose", boolean).unwrap_or(false);
        let targets = reader.mappings("targets", |target| {
            let name = target.required("name", text);
            let ports = target.list("ports", number);
            Some((name?, ports))
        });
        let policy = reader.mapping("policy", |policy| {
            let denied = policy.list("denied", text);
            let widest = policy.optional("widest", number);
            if denied.is_empty() {
                policy.reject("denied", "names no network");
            }
            Some((denied, widest))
        });
        let (denied, widest) = policy?;
        Some(Sample { listen: listen?, workers: workers?, verbose, targets, denied, widest })
    })
}

fn told(result: Result<Sample, Vec<Mistake>>) -> String {
    let mistakes = result.expect_err("there are mistakes");
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_document_without_mistakes_is_read() {
    let read = sample(SAMPLE).unwrap();

    assert_eq!(read.listen, IpAddr::from([127, 0, 0, 1]));
    assert_eq!((read.workers, read.verbose, read.widest), (4, false, Some(24)));
    assert_eq!(read.targets, [("ssh".into(), vec![22, 2222]), ("web".into(), vec![443])]);
    assert_eq!(read.denied.len(), 2);
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_places() {
    let text = "\
listen: localhost
worker: 4
verbose: no
listen: 127.0.0.1
targets:
  - name: ssh
    ports: [22, ssh, 70000, 010, \"80\"]
    colour: blue
  - ports: 443
  - web
policy:
  denied:
    # - 198.51.100.0/24
  widest:
  <<: {}
";
    let all = "\
1:1: workers: is missing
1:9: listen: invalid IP address syntax
2:1: worker: is not known here; did you mean `workers`?
3:10: verbose: is `no`; write true or false
4:1: listen: is given twice, first in line 1; keep one
7:17: targets[0].ports[1]: is `ssh`; write a whole number, without quotes or leading zeros
7:22: targets[0].ports[2]: is 70000, which is out of range
7:29: targets[0].ports[3]: is `010`; write a whole number, without quotes or leading zeros
7:34: targets[0].ports[4]: is `80`; write a whole number, without quotes or leading zeros
8:5: targets[0].colour: is not known here; known are `name`, `ports`
9:5: targets[1].name: is missing
9:12: targets[1].ports: is a number; write a list
10:5: targets[2]: is a text; write a mapping (`key: value`)
12:9: policy.denied: names no network
14:9: policy.widest: has no value
15:3: policy.<<: is not known here; known are `denied`, `widest`";
    assert_eq!(told(sample(text)), all);
}

#[test]
fn wrong_shapes_are_told_with_what_to_write() {
    let shapes = "policy: [1]\ntargets: {a: b}\nlisten: [x]\nworkers: true\n";
    for (text, all) in [
        ("- a\n", "1:1: is a list; write a mapping (`key: value`)"),
        (
            "# nothing\n",
            "1:1: listen: is missing\n1:1: policy: is missing\n1:1: workers: is missing",
        ),
        (
            shapes,
            "\
1:9: policy: is a list; write a mapping (`key: value`)
2:10: targets: is a mapping; write a list
3:9: listen: is a list; write a single value
4:10: workers: is `true`; write a whole number, without quotes or leading zeros",
        ),
        (
            &SAMPLE.replace("workers: 4", "workers: 65"),
            "3:10: workers: is 65; write a number from 1 to 64",
        ),
        (
            &SAMPLE.replace("127.0.0.1", "true"),
            "2:9: listen: is true; write a text, in quotes if need be",
        ),
    ] {
        assert_eq!(told(sample(text)), all);
    }
}

#[test]
fn a_mistake_in_the_syntax_comes_alone_with_its_place() {
    for (text, one) in [
        ("listen: 1\nworkers: [1, 2\npolicy: 3\n", "3:7: illegal placement of ':' indicator"),
        ("listen: a: b\n", "1:10: mapping values are not allowed in this context"),
        ("listen: *nobody\n", "1:9: alias references unknown anchor"),
        ("listen: 1\n---\nlisten: 2\n", "3:1: a second document starts here; keep one"),
        ("? [a]\n: 2\n", "1:3: expected string scalar"),
    ] {
        assert_eq!(told(sample(text)), one);
    }
}

#[test]
fn bombs_are_refused_quickly() {
    let nested = format!("listen: {}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let shallow = format!("listen: {}1{}", "[".repeat(40), "]".repeat(40));
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let names = vec![format!("*a{}", level - 1); 8].join(", ");
        aliases.push_str(&format!("a{level}: &a{level} [{names}]\n"));
    }
    let long = format!("# {}\n", "x".repeat(DOCUMENT_BYTES_MAX));

    for bomb in [nested, shallow, aliases, long] {
        assert_eq!(sample(&bomb).unwrap_err().len(), 1);
    }
}

#[test]
fn numbers_keep_their_notation_where_a_text_is_wanted() {
    let read = read("version: 1.10\n", |reader| reader.required("version", text::<String>));

    assert_eq!(read.unwrap(), "1.10");
}

#[test]
fn an_alias_stands_for_its_anchor() {
    let text = SAMPLE.replace("[22, 2222]", "&ports [22]").replace("\n      - 443", " *ports");

    let read = sample(&text).unwrap();

    assert_eq!(read.targets[1].1, [22]);
}

#[test]
fn a_key_given_twice_keeps_its_first_value_and_is_told() {
    let text = format!("{SAMPLE}workers: 9\n");

    assert_eq!(told(sample(&text)), "16:1: workers: is given twice, first in line 3; keep one");
}

/// Every key of the sample with its line, and the text around the key in that line.
fn keys() -> Vec<(usize, &'static str, &'static str, &'static str)> {
    let lines = SAMPLE.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let key = |(index, line): (usize, &'static str)| {
        let (before, rest) = line.split_at(line.find(|c: char| c.is_ascii_alphabetic())?);
        let (key, value) = rest.split_once(':')?;
        key.bytes().all(|byte| byte.is_ascii_lowercase()).then_some((index, before, key, value))
    };
    lines.filter_map(key).collect()
}

#[test]
fn the_sample_has_keys_to_misspell() {
    assert_eq!(keys().len(), 11);
}

proptest! {
    #[test]
    fn a_misspelt_key_is_found_at_its_place_with_the_right_one(
        which: prop::sample::Index, at: prop::sample::Index, letter in "[a-z]",
        edit in 0..3,
    ) {
        let (index, before, key, value) = keys()[which.index(keys().len())];
        let mut misspelt = key.to_owned();
        let position = at.index(key.len());
        match edit {
            0 => misspelt.insert_str(position, &letter),
            1 => misspelt.replace_range(position..=position, &letter),
            _ => drop(misspelt.remove(position)),
        }
        prop_assume!(misspelt != key && misspelt != "no");
        let mut lines: Vec<String> = SAMPLE.lines().map(str::to_owned).collect();
        lines[index] = format!("{before}{misspelt}:{value}");

        let mistakes = sample(&lines.join("\n")).unwrap_err();

        let place = (index as u64 + 1, before.len() as u64 + 1);
        let found = mistakes.iter().find(|mistake| (mistake.line, mistake.column) == place
            && mistake.message.starts_with("is not known here"));
        let found = found.expect("the misspelt key is a mistake").message.clone();
        prop_assert!(found.ends_with(&format!("did you mean `{key}`?")), "{found}");
    }

    #[test]
    fn no_edit_makes_it_panic_or_lose_its_place(
        at: prop::sample::Index, len in 0usize..12, insert in "[ \\-:#\\[\\]{}&*!|>'\"%@`,?~<0-9a-zé\n\t]{0,4}",
    ) {
        let start = at.index(SAMPLE.len());
        let end = (start + len).min(SAMPLE.len());
        let mut text = SAMPLE.to_owned();
        text.replace_range(start..end, &insert);

        if let Err(mistakes) = sample(&text) {
            let lines = text.lines().count() as u64 + 1;
            prop_assert!(!mistakes.is_empty());
            for mistake in mistakes {
                prop_assert!((1..=lines).contains(&mistake.line), "{mistake}");
                prop_assert!(1 <= mistake.column && !mistake.message.is_empty());
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}") {
        drop(sample(&text));
    }
}
