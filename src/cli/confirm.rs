//! The question before a device is erased.

use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{bail, ensure};

use super::report::Survey;
use crate::units::ByteSize;

/// Who answers the question.
pub struct Asker<'a> {
    /// The answer is read from here.
    pub input: &'a mut dyn BufRead,
    /// The question is written here.
    pub output: &'a mut dyn Write,
    /// A person sits at the input.
    pub is_terminal: bool,
}

/// Asks whether `path` may be erased; an error means no.
pub fn confirm(path: &Path, survey: &Survey, asker: Asker<'_>) -> anyhow::Result<()> {
    let path = path.display();
    let contents = survey.contents.as_deref().unwrap_or("nothing known");
    let size = ByteSize(survey.size_bytes);
    ensure!(
        asker.is_terminal,
        "{path} ({size}, holds {contents}) would be erased and nobody can be asked: \
         add --yes to go on"
    );
    write!(
        asker.output,
        "This erases everything on {path}.\n  size   {size}\n  holds  {contents}\nType yes to go on: "
    )?;
    asker.output.flush()?;
    let mut answer = String::new();
    asker.input.read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { bail!("nothing was changed") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(answer: &str, is_terminal: bool) -> (anyhow::Result<()>, String) {
        let contents = Some("an ext4 file system".into());
        let survey = Survey { size_bytes: 1 << 30, contents, needs_force: true };
        let mut output = Vec::new();
        let asker = Asker { input: &mut answer.as_bytes(), output: &mut output, is_terminal };
        let result = confirm(Path::new("/dev/x"), &survey, asker);
        (result, String::from_utf8(output).unwrap())
    }

    #[test]
    fn the_question_names_device_size_and_contents() {
        let (result, question) = ask("yes\n", true);
        assert!(result.is_ok());
        for part in ["/dev/x", "1GiB", "an ext4 file system"] {
            assert!(question.contains(part), "{part} in {question}");
        }
    }

    #[test]
    fn anything_but_yes_changes_nothing() {
        for answer in ["", "\n", "no\n", "y\n", "YES\n"] {
            assert!(ask(answer, true).0.is_err(), "{answer:?}");
        }
    }

    #[test]
    fn without_a_terminal_nobody_is_asked() {
        let (result, question) = ask("yes\n", false);
        assert!(result.unwrap_err().to_string().contains("--yes"));
        assert_eq!(question, "");
    }
}
