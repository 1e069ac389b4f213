//! Server-sent events, as far as our own stream uses them.

/// Longest event: a list of 131,072 entries has about 11 MB.
const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Longest name of an event; ours have at most nine letters.
const NAME_BYTES_MAX: usize = 64;

/// Takes bytes as they come and gives whole events.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The line that has begun and not ended.
    line: Vec<u8>,
    name: String,
    data: Option<Data>,
    /// The last byte was a carriage return: a line feed right behind it ends no second line.
    after_return: bool,
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    data: Data,
}

/// The data of an event, in the buffer that it came in: a list is large, so it is not copied.
#[derive(Debug, PartialEq, Eq)]
struct Data {
    bytes: Vec<u8>,
    start: usize,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    #[error("an event of the stream has more than {EVENT_BYTES_MAX} bytes")]
    TooLong,
    #[error("an event of the stream is not UTF-8")]
    NotUtf8,
}

impl Event {
    pub(crate) fn data(&self) -> Result<&str, SseError> {
        str::from_utf8(&self.data.bytes[self.data.start..]).map_err(|_| SseError::NotUtf8)
    }
}

impl Parser {
    /// Takes the next bytes. `found` gets each event as soon as it is whole; bytes behind an
    /// error are lost.
    pub(crate) fn push<E: From<SseError>>(
        &mut self,
        mut bytes: &[u8],
        mut found: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.after_return && !bytes.is_empty() {
            self.after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend_line(&bytes[..end])?;
            let is_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if is_return {
                self.after_return = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            if let Some(event) = self.end_line()? {
                found(event)?;
            }
        }
        Ok(self.extend_line(bytes)?)
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        let held = self.data.as_ref().map_or(0, |data| data.bytes.len());
        if EVENT_BYTES_MAX < held + self.line.len() + bytes.len() {
            return Err(SseError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads the line that just ended; an empty one ends an event.
    fn end_line(&mut self) -> Result<Option<Event>, SseError> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return Ok(self.data.take().map(|data| Event { name, data }));
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let start = match line.get(colon + 1) {
            Some(b' ') => colon + 2,
            Some(_) | None => line.len().min(colon + 1),
        };
        match &line[..colon] {
            b"event" => {
                let value = &line[start..line.len().min(start + NAME_BYTES_MAX)];
                self.name = str::from_utf8(value).map_err(|_| SseError::NotUtf8)?.to_owned();
            }
            b"data" => match &mut self.data {
                Some(data) => {
                    data.bytes.push(b'\n');
                    data.bytes.extend_from_slice(&line[start..]);
                }
                None => self.data = Some(Data { bytes: line, start }),
            },
            // Comments, which keep the connection alive, and fields that we do not use.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parser: &mut Parser, bytes: &[u8]) -> Result<Vec<(String, String)>, SseError> {
        let mut events = Vec::new();
        parser.push(bytes, |event| {
            events.push((event.name.clone(), event.data()?.to_owned()));
            Ok::<(), SseError>(())
        })?;
        Ok(events)
    }

    fn pair(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn events_comments_and_foreign_fields_are_told_apart() {
        let text = b": hello\n\nid: 7\nretry: 1\nevent: same\ndata: {\"a\":1}\n\n:\n\
                     event:delta\ndata:x\ndata: y\n\nevent: no-data\n\ndata\n\n";

        let events = read(&mut Parser::default(), text).unwrap();

        assert_eq!(events, [pair("same", "{\"a\":1}"), pair("delta", "x\ny"), pair("", "")]);
    }

    #[test]
    fn an_event_that_is_cut_off_is_none() {
        let mut parser = Parser::default();

        assert_eq!(read(&mut parser, b"event: same\ndata: {}\n").unwrap(), []);
        assert_eq!(read(&mut parser, b"\n").unwrap(), [pair("same", "{}")]);
    }

    #[test]
    fn a_line_without_end_is_given_up_at_the_limit() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1024 * 1024];
        let mut taken = 0;

        let error = loop {
            match read(&mut parser, &piece) {
                Ok(_) => taken += piece.len(),
                Err(error) => break error,
            }
        };

        assert_eq!(error, SseError::TooLong);
        assert_eq!(taken, EVENT_BYTES_MAX);
    }

    #[test]
    fn many_short_lines_of_one_event_count_together() {
        let mut parser = Parser::default();
        let piece = b"data: 0123456789abcdef\n".repeat(64 * 1024);

        let error =
            (0..=EVENT_BYTES_MAX / piece.len() * 2).find_map(|_| read(&mut parser, &piece).err());

        assert_eq!(error, Some(SseError::TooLong));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(read(&mut Parser::default(), b"data: \xff\n\n"), Err(SseError::NotUtf8));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_and_how_lines_end_plays_no_part(
            events in prop::collection::vec(("[a-z]{1,9}", "[a-z:{} ]{0,20}"), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            ending in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let text: String = events
                .iter()
                .map(|(name, data)| format!("event: {name}{ending}data: {data}{ending}{ending}"))
                .collect();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let mut parser = Parser::default();

            let mut found = Vec::new();
            for place in places.windows(2) {
                found.extend(read(&mut parser, &text.as_bytes()[place[0]..place[1]]).unwrap());
            }
            // A last carriage return could still be half of a line's end, and ends it all the same.
            prop_assert_eq!(found, events);
        }
    }
}
