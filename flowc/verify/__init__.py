"""Nobody has to take the compiler's word: every build is run and compared with what its spec means."""
