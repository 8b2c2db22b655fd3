//! Support of the benches. The benches themselves are the files beside this folder, one for each question.
