//! Reads targets that are files.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postern_shared::document::{Reader, Scalar, number_in, span, text};
use postern_shared::format::{Format, Name, Rendering};
use postern_shared::network::Family;

use super::kind::swept;
use super::read::{file_path, groups, one_of};
use super::{Claim, Door, GroupRef, Kind, Opening, SweepFuture, Sweeping};
use crate::commands::{Program, Trade};
use crate::firewalls::HostTarget;
use crate::target::file::{File, FileConfig, Form, Line, Template, Who};
use crate::target::marked::Marked;

/// Most words of a command.
const ARGUMENTS_MAX: usize = 64;

/// A file that a program reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileAt {
    /// Where and how.
    pub(crate) what: FileConfig,
    /// Whose addresses go in.
    pub(crate) groups: Vec<GroupRef>,
}

/// The words for forms, of which a template is none.
#[derive(Debug, Clone, Copy)]
enum Word {
    Feed(Format),
    Json,
}

const FORMS: [(&str, Word); 8] = [
    ("text", Word::Feed(Format::Text)),
    ("csv", Word::Feed(Format::Csv)),
    ("json", Word::Json),
    ("nft", Word::Feed(Format::Nft)),
    ("ipset", Word::Feed(Format::Ipset)),
    ("nginx", Word::Feed(Format::Nginx)),
    ("haproxy", Word::Feed(Format::Haproxy)),
    ("apache", Word::Feed(Format::Apache)),
];

impl Kind for FileAt {
    fn read(reader: &mut Reader<'_>, _target: Option<&str>) -> Option<FileAt> {
        let path = reader.required("path", file_path("/etc/nginx/postern/office.conf"));
        let form = form(reader);
        let mode = reader.optional("mode", mode).unwrap_or(FileConfig::MODE);
        let user = reader.optional("user", who);
        let group = reader.optional("group", who);
        let reload = command(reader, "reload", "reload_timeout");
        let groups = groups(reader);
        let what = FileConfig { path: path?, form: form?, mode, user, group, reload };
        Some(FileAt { what, groups })
    }

    fn doors(&self) -> Vec<Door<'_>> {
        vec![Door { service: None, ports: &[], groups: &self.groups }]
    }

    fn before_first_list(&self) -> Option<&'static str> {
        Some("the file is as it was")
    }

    fn claims(&self) -> Vec<Claim> {
        // As its parts make it: `/etc//postern` is `/etc/postern`.
        let path: PathBuf = self.what.path.components().collect();
        let remedy = "give one of them another `path`, or make one target with the groups of both";
        vec![Claim::whole("path", format!("the file {}", path.display()), remedy)]
    }

    fn trade(&self) -> Option<Trade> {
        self.what.reload.clone().map(Trade::Reload)
    }

    fn sweep(&self, sweeping: Sweeping<'_>) -> Option<SweepFuture> {
        swept(
            File::new(self.what.clone(), sweeping.name, sweeping.commands.clone()),
            sweeping.name,
            sweeping,
        )
    }

    fn open(&self, opening: &Opening<'_>) -> Result<HostTarget, String> {
        let groups = opening.groups(&self.groups)?;
        let file = File::new(self.what.clone(), opening.name, opening.commands.clone());
        Ok(HostTarget::new(Marked::new(opening.name, opening.name, groups, file)))
    }
}

/// Reads which form it is: one of the feed's, or a template.
fn form(reader: &mut Reader<'_>) -> Option<Form> {
    let (word, is_format_there) = noted(reader, "format", one_of(&FORMS));
    let has_template = reader.optional_mapping("template", |reader| Some(template(reader)));
    let (name, is_name_there) = noted(reader, "list_name", text::<Name>);
    let table = reader.optional("table", text::<Name>);
    let families = [("4", Family::V4), ("6", Family::V6)];
    let family = reader.optional("family", one_of(&families));
    match (word, has_template) {
        (Some(_), Some(_)) => {
            reader.reject("template", "stands beside `format`; leave one of them out");
            None
        }
        (None, Some(template)) => {
            let needless = [("list_name", name.is_some()), ("table", table.is_some())];
            let needless = needless.into_iter().chain([("family", family.is_some())]);
            for (key, _) in needless.filter(|(_, is_there)| *is_there) {
                reader.reject(key, "means nothing beside `template`");
            }
            template.map(Form::Template)
        }
        (None, None) => {
            // What is there but wrong was told already, and is not missing.
            if !is_format_there {
                reader.reject("format", "is missing; a file has a `format` or a `template`");
            }
            None
        }
        (Some(word), None) => {
            if !is_name_there && word.has_name() {
                reader.reject("list_name", "is missing: this form calls something by it");
            }
            feed(reader, word, name, table, family)
        }
    }
}

/// Reads a value, and says whether there is one at all.
fn noted<T>(
    reader: &mut Reader<'_>,
    key: &'static str,
    parse: impl FnOnce(Scalar<'_>) -> Result<T, String>,
) -> (Option<T>, bool) {
    let mut is_there = false;
    let value = reader.optional(key, |scalar| {
        is_there = true;
        parse(scalar)
    });
    (value, is_there)
}

impl Word {
    fn has_name(self) -> bool {
        match self {
            Word::Feed(format) => format.has_name(),
            Word::Json => false,
        }
    }
}

fn feed(
    reader: &mut Reader<'_>,
    word: Word,
    name: Option<Name>,
    table: Option<Name>,
    family: Option<Family>,
) -> Option<Form> {
    let has_name = word.has_name();
    if name.is_some() && !has_name {
        reader.reject("list_name", "means nothing in this form");
    }
    if table.is_some() && !matches!(word, Word::Feed(Format::Nft)) {
        reader.reject("table", "means nothing in this form; only `nft` has one");
    }
    match word {
        Word::Json if family.is_some() => {
            reader.reject("family", "means nothing in this form, which says it of each entry");
            None
        }
        Word::Json => Some(Form::Json),
        Word::Feed(format) => Some(Form::Feed(Rendering {
            format,
            name: if has_name { name? } else { Name::filter() },
            table: table.unwrap_or_else(Name::filter),
            family,
        })),
    }
}

fn template(reader: &mut Reader<'_>) -> Option<Template> {
    let of = |parse: fn(&str) -> Result<String, String>| {
        move |scalar: Scalar<'_>| parse(&text::<String>(scalar)?)
    };
    let header = reader.optional("header", of(Template::block)).unwrap_or_default();
    let line = reader.required("line", |scalar| Line::read(&text::<String>(scalar)?));
    let footer = reader.optional("footer", of(Template::block)).unwrap_or_default();
    let comment = reader.optional("comment", of(Template::comment));
    Some(Template { header, line: line?, footer, comment })
}

/// Reads a command of the operator's: a list, since no shell is there to take a line apart.
pub(super) fn command(
    reader: &mut Reader<'_>,
    key: &'static str,
    limit_key: &'static str,
) -> Option<Program> {
    let limit = reader.optional(limit_key, limit);
    let is_there = Cell::new(false);
    let argv = reader.list(key, |scalar| {
        is_there.set(true);
        argument(scalar)
    });
    if !is_there.get() {
        if limit.is_some() {
            reader.reject(limit_key, format!("means nothing without `{key}`"));
        }
        return None;
    }
    if argv.first().is_some_and(|program| !Path::new(program).is_absolute()) {
        reader.reject(
            key,
            "begins with no absolute path; write such as [/usr/sbin/nginx, -s, reload]",
        );
        return None;
    }
    if ARGUMENTS_MAX < argv.len() {
        reader.reject(key, format!("has more than {ARGUMENTS_MAX} words"));
        return None;
    }
    Some(Program { argv, limit: limit.unwrap_or(Program::LIMIT) })
}

fn argument(scalar: Scalar<'_>) -> Result<String, String> {
    let word: String = text(scalar)?;
    if word.is_empty() || word.contains('\0') {
        return Err("is no word of a command".to_owned());
    }
    Ok(word)
}

fn limit(scalar: Scalar<'_>) -> Result<Duration, String> {
    let limit = span(scalar)?.as_duration();
    if Program::LIMIT_SECS_MAX < limit.as_secs() {
        return Err(format!(
            "is longer than {}s; a program that takes longer is started in the background",
            Program::LIMIT_SECS_MAX
        ));
    }
    Ok(limit)
}

/// Reads permissions as `chmod` takes them, with or without quotes.
fn mode(scalar: Scalar<'_>) -> Result<u32, String> {
    let (Scalar::Text(written) | Scalar::Number(written)) = scalar else {
        return Err("is no mode; write such as 0640".to_owned());
    };
    let is_octal =
        !written.is_empty() && written.bytes().all(|digit| (b'0'..b'8').contains(&digit));
    let mode = u32::from_str_radix(written, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    let mode =
        mode.ok_or_else(|| format!("is `{written}`; write such as 0640, with digits up to 7"))?;
    if mode & 0o022 != 0 {
        return Err(format!("is {written}: others could write who gets in; write such as 0640"));
    }
    if mode & 0o600 != 0o600 {
        return Err(format!(
            "is {written}: the agent itself could not read it; write such as 0640"
        ));
    }
    Ok(mode)
}

/// Reads a user or a group: its number, or its name.
fn who(scalar: Scalar<'_>) -> Result<Who, String> {
    if let Scalar::Number(_) = scalar {
        return number_in(0..=u32::MAX - 1)(scalar).map(Who::Id);
    }
    let name: String = text(scalar)?;
    let is_name = !name.is_empty()
        && name.len() <= 32
        && name.chars().all(|char| char.is_ascii_alphanumeric() || "-_.$".contains(char));
    if is_name {
        Ok(Who::Name(name))
    } else {
        Err(format!("is `{name}`, which is no user or group"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::config;
    use super::*;
    use crate::config::TargetKind;

    fn read(keys: &str) -> Result<FileAt, Vec<String>> {
        let source = format!("targets: [{{name: web, type: file, groups: [ops], {keys}}}]");
        let read = config(&source);
        let told = |mistakes: Vec<postern_shared::document::Mistake>| {
            mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mut config = read.map_err(told)?;
        let TargetKind::File(file) = config.targets.remove(0).kind else { panic!("a file") };
        Ok(file)
    }

    #[test]
    fn every_key_is_read() {
        let file = read(
            "path: /etc/nginx/office.conf, format: nft, list_name: office, table: inbound, family: 4, \
             mode: 0600, user: www-data, group: 33, reload: [/usr/sbin/nft, -f, /x], \
             reload_timeout: 5s",
        );

        let file = file.unwrap();
        assert_eq!(file.what.path, Path::new("/etc/nginx/office.conf"));
        let Form::Feed(rendering) = file.what.form else { panic!("a form of the feed") };
        assert_eq!((rendering.format, rendering.family), (Format::Nft, Some(Family::V4)));
        assert_eq!((rendering.name.as_str(), rendering.table.as_str()), ("office", "inbound"));
        assert_eq!(file.what.mode, 0o600);
        assert_eq!(file.what.user, Some(Who::Name("www-data".to_owned())));
        assert_eq!(file.what.group, Some(Who::Id(33)));
        let reload = file.what.reload.unwrap();
        assert_eq!((reload.argv.len(), reload.limit), (3, Duration::from_secs(5)));
    }

    #[test]
    fn a_template_is_read_and_every_form_of_the_feed() {
        let template = "template: {header: 'a {', line: '{network};', footer: '}', comment: '#'}";
        let file = read(&format!("path: /a/b, {template}")).unwrap();
        let Form::Template(template) = file.what.form else { panic!("a template") };
        assert_eq!((template.header.as_str(), template.footer.as_str()), ("a {\n", "}\n"));

        for (word, form) in FORMS {
            let name = match form {
                Word::Feed(format) if format.has_name() => ", list_name: office",
                Word::Feed(_) | Word::Json => "",
            };
            read(&format!("path: /a/b, format: {word}{name}")).unwrap();
        }
    }

    #[test]
    fn mistakes_are_told_with_what_to_write() {
        for (keys, place, word) in [
            ("path: /a/b", "targets[0].format:", "is missing"),
            ("path: a/b, format: text", "targets[0].path:", "absolute"),
            ("path: /a/../b, format: text", "targets[0].path:", "absolute"),
            ("path: /a/, format: text", "targets[0].path:", "absolute"),
            ("path: /a, format: xml", "targets[0].format:", "text or csv or json"),
            ("path: /a, format: nginx", "targets[0].list_name:", "is missing"),
            ("path: /a, format: nginx, list_name: a-b", "targets[0].list_name:", "letters"),
            ("path: /a, format: text, list_name: a", "targets[0].list_name:", "nothing"),
            ("path: /a, format: nginx, list_name: a, table: b", "targets[0].table:", "only `nft`"),
            ("path: /a, format: json, family: 4", "targets[0].family:", "nothing"),
            ("path: /a, format: text, mode: 0666", "targets[0].mode:", "others could write"),
            ("path: /a, format: text, mode: 0240", "targets[0].mode:", "could not read"),
            ("path: /a, format: text, mode: 9", "targets[0].mode:", "0640"),
            ("path: /a, format: text, mode: 04755", "targets[0].mode:", "0640"),
            ("path: /a, format: text, user: 'a b'", "targets[0].user:", "no user"),
            ("path: /a, format: text, reload: [nginx]", "targets[0].reload:", "absolute path"),
            ("path: /a, format: text, reload: nginx", "targets[0].reload:", "a list"),
            ("path: /a, format: text, reload: [/b, '']", "targets[0].reload[1]:", "no word"),
            ("path: /a, format: text, reload_timeout: 5s", "targets[0].reload_timeout:", "without"),
            (
                "path: /a, format: text, reload: [/b], reload_timeout: 31s",
                "targets[0].reload_timeout:",
                "longer than 30s",
            ),
            ("path: /a, template: {line: '{net}'}", "targets[0].template.line:", "{network}"),
            ("path: /a, template: {header: x}", "targets[0].template.line:", "is missing"),
            (
                "path: /a, template: {line: '{network}', comment: ''}",
                "targets[0].template.comment:",
                "begins no comment",
            ),
            (
                "path: /a, format: text, template: {line: '{network}'}",
                "targets[0].template:",
                "leave one",
            ),
            (
                "path: /a, template: {line: '{network}'}, list_name: a",
                "targets[0].list_name:",
                "nothing",
            ),
        ] {
            let told = read(keys).unwrap_err();
            let found = told.iter().any(|line| line.contains(place) && line.contains(word));
            assert!(found, "{keys}: {place} {word}\n{}", told.join("\n"));
            assert_eq!(told.len(), 1, "{keys}: {}", told.join("\n"));
        }
    }
}
