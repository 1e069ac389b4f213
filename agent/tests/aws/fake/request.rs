//! A call as EC2 gets it: a form with numbered names.

use std::collections::BTreeMap;

pub(crate) struct Request {
    pub(crate) action: String,
    parameters: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn read(body: &[u8]) -> Request {
        let parameters: BTreeMap<String, String> =
            form_urlencoded::parse(body).into_owned().collect();
        Request { action: parameters.get("Action").cloned().unwrap_or_default(), parameters }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The prefixes `name.1`, `name.2` and so on, as far as there are any.
    pub(crate) fn numbered<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        (1..).map(move |number| format!("{name}.{number}")).take_while(|prefix| {
            let within = |name: &String| {
                name.strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            self.parameters.keys().any(within)
        })
    }
}
