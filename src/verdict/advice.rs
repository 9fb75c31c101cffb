//! One sentence for every (state, cause): what a person on call does next, with the command to run.
