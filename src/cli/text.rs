//! Words and figures for people.

use std::time::Duration;

/// A table: a head, then rows; two spaces between columns. Columns named in `right` hold numbers.
pub fn table(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |line: &&Vec<String>| {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A size in bytes.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A length of time in seconds.
pub fn seconds(length: f64) -> String {
    if length < 10.0 {
        return format!("{length:.2} s");
    }
    if length < 60.0 {
        return format!("{length:.1} s");
    }
    let whole = length.round().max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// `count` of something.
pub fn count(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// Text from elsewhere, with what could command a terminal made visible.
pub fn plain(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Reads a length of time as people write it: `5s`, `1m 30s`, `500ms`.
///
/// # Errors
/// What is wrong with it and what would do.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let length: jiff::SignedDuration =
        text.parse().map_err(|_| "write a length of time like 5s, 1m 30s or 500ms".to_owned())?;
    match Duration::try_from(length) {
        Ok(length) if length > Duration::ZERO => Ok(length),
        _ => Err("write a length of time above zero".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lengths_read_well() {
        assert_eq!(
            (bytes(1023), bytes(1536), bytes(5 << 30)),
            ("1023 B".into(), "1.5 KiB".into(), "5.0 GiB".into())
        );
        assert_eq!(
            (seconds(0.314), seconds(59.94), seconds(61.0)),
            ("0.31 s".into(), "59.9 s".into(), "1 min 1 s".into())
        );
        assert_eq!(seconds(7300.0), "2 h 1 min");
    }

    #[test]
    fn a_table_aligns_its_columns() {
        let rows = [vec!["a".into(), "10".into()], vec!["long".into(), "7".into()]];
        assert_eq!(table(&["NAME", "N"], &[1], &rows), "NAME   N\na     10\nlong   7");
    }

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(
            parse_duration("0s").is_err() && parse_duration("-5s").is_err() && parse_duration("5").is_err()
        );
    }
}
