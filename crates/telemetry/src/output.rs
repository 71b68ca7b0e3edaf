//! What a program prints for people before it does its work: help, version.
//! Invariant: a reader that has seen enough, such as `head`, is no error.
//! Leaves logs to `logs`.

use std::io::{self, Write};

/// Prints the text to standard output.
///
/// # Errors
/// It cannot be written, for another reason than that the reader is gone.
pub fn print(text: &str) -> io::Result<()> {
    print_to(io::stdout().lock(), text)
}

fn print_to(mut out: impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn reader_that_has_seen_enough_is_no_error_and_a_full_disk_is() {
        assert!(print_to(Broken(io::ErrorKind::BrokenPipe), "help").is_ok());
        let error = print_to(Broken(io::ErrorKind::StorageFull), "help").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let mut out = Vec::new();
        print_to(&mut out, "help").unwrap();
        assert_eq!(out, b"help");
    }
}
