//! Tokens to a program, by recursive descent. Weakest first: OR, AND, NOT, comparison, `+ -`, `* / %`, sign, operand.

use crate::error::{Error, Problem};
use crate::function::Function;
use crate::lex::{self, Spanned, Token};
use crate::limits::DEPTH_MAX;
use crate::program::{Arithmetic, Comparison, Part, Step};
use crate::value::Value;

const KEYWORDS: [&str; 14] =
    ["AND", "OR", "NOT", "IN", "IS", "NULL", "TRUE", "FALSE", "CASE", "WHEN", "THEN", "ELSE", "END", "AS"];

/// Reads tokens and appends steps.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// Never empty: the last is [`Token::End`], which is never passed.
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
    steps: Vec<Step>,
}

impl Compiler {
    pub(crate) fn new(text: &str) -> Result<Compiler, Error> {
        Ok(Compiler { tokens: lex::tokens(text)?, at: 0, depth: 0, steps: Vec::new() })
    }

    /// The steps since the last time.
    pub(crate) fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    pub(crate) fn at_end(&self) -> bool {
        *self.peek() == Token::End
    }

    pub(crate) fn expect_end(&self) -> Result<(), Error> {
        if self.at_end() { Ok(()) } else { self.expected("an operator or the end") }
    }

    pub(crate) fn column(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |spanned| spanned.column)
    }

    pub(crate) fn fail<T>(&self, problem: Problem) -> Result<T, Error> {
        Err(Error { column: self.column(), problem })
    }

    pub(crate) fn expected<T>(&self, wanted: &'static str) -> Result<T, Error> {
        self.fail(Problem::Expected { wanted, found: self.peek().describe() })
    }

    pub(crate) fn sign(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(sign) if *sign == wanted);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn keyword(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(wanted));
        self.at += usize::from(found);
        found
    }

    /// A name, quoted or not. Keywords are names only where `any` word may stand.
    pub(crate) fn name(&mut self, any: bool) -> Result<String, Error> {
        let name = match self.peek() {
            Token::Quoted(name) => name.clone(),
            Token::Word(word) if any || !is_keyword(word) => word.clone(),
            _ => return self.expected("a name"),
        };
        self.at += 1;
        Ok(name)
    }

    /// Whether a path starts here: a name that no bracket follows.
    pub(crate) fn at_path(&self) -> bool {
        match self.peek() {
            Token::Quoted(_) => true,
            Token::Word(word) => !is_keyword(word) && !self.call_follows(),
            _ => false,
        }
    }

    /// `name.name[0]`
    pub(crate) fn path(&mut self) -> Result<Vec<Part>, Error> {
        let mut parts = vec![Part::Name(self.name(false)?)];
        loop {
            if self.sign(".") {
                parts.push(Part::Name(self.name(true)?));
            } else if self.sign("[") {
                let Token::Int(index) = *self.peek() else { return self.expected("an index") };
                let Ok(index) = usize::try_from(index) else { return self.fail(Problem::Number) };
                self.at += 1;
                self.expect_sign("]", "']'")?;
                parts.push(Part::Index(index));
            } else {
                return Ok(parts);
            }
        }
    }

    pub(crate) fn expression(&mut self) -> Result<(), Error> {
        self.conjunction()?;
        while self.keyword("OR") {
            let skip = self.emit(Step::SkipIfTrue(0));
            self.conjunction()?;
            self.emit(Step::Or);
            self.land(skip);
        }
        Ok(())
    }

    fn conjunction(&mut self) -> Result<(), Error> {
        self.negation()?;
        while self.keyword("AND") {
            let skip = self.emit(Step::SkipIfFalse(0));
            self.negation()?;
            self.emit(Step::And);
            self.land(skip);
        }
        Ok(())
    }

    fn negation(&mut self) -> Result<(), Error> {
        if !self.keyword("NOT") {
            return self.comparison();
        }
        self.nested(Compiler::negation)?;
        self.emit(Step::Not);
        Ok(())
    }

    fn comparison(&mut self) -> Result<(), Error> {
        self.sum()?;
        let comparison = match self.peek() {
            Token::Sign("=") => Comparison::Equal,
            Token::Sign("!=") => Comparison::Unequal,
            Token::Sign("<") => Comparison::Less,
            Token::Sign("<=") => Comparison::LessOrEqual,
            Token::Sign(">") => Comparison::Greater,
            Token::Sign(">=") => Comparison::GreaterOrEqual,
            _ => return self.membership(),
        };
        self.at += 1;
        self.sum()?;
        self.emit(Step::Compare(comparison));
        Ok(())
    }

    /// `IS [NOT] NULL`, `[NOT] IN (...)`, or nothing.
    fn membership(&mut self) -> Result<(), Error> {
        let negated;
        if self.keyword("IS") {
            negated = self.keyword("NOT");
            if !self.keyword("NULL") {
                return self.expected("NULL");
            }
            self.emit(Step::IsNull);
        } else {
            negated = self.keyword("NOT");
            if !self.keyword("IN") {
                return if negated { self.expected("IN") } else { Ok(()) };
            }
            self.expect_sign("(", "'('")?;
            let count = self.list()?;
            self.emit(Step::In(count));
        }
        if negated {
            self.emit(Step::Not);
        }
        Ok(())
    }

    fn sum(&mut self) -> Result<(), Error> {
        self.product()?;
        loop {
            let operation = match self.peek() {
                Token::Sign("+") => Arithmetic::Add,
                Token::Sign("-") => Arithmetic::Subtract,
                _ => return Ok(()),
            };
            self.at += 1;
            self.product()?;
            self.emit(Step::Arithmetic(operation));
        }
    }

    fn product(&mut self) -> Result<(), Error> {
        self.signed()?;
        loop {
            let operation = match self.peek() {
                Token::Sign("*") => Arithmetic::Multiply,
                Token::Sign("/") => Arithmetic::Divide,
                Token::Sign("%") => Arithmetic::Remainder,
                _ => return Ok(()),
            };
            self.at += 1;
            self.signed()?;
            self.emit(Step::Arithmetic(operation));
        }
    }

    fn signed(&mut self) -> Result<(), Error> {
        if !self.sign("-") {
            return self.operand();
        }
        self.nested(Compiler::signed)?;
        self.emit(Step::Negate);
        Ok(())
    }

    fn operand(&mut self) -> Result<(), Error> {
        if self.sign("(") {
            self.nested(Compiler::expression)?;
            return self.expect_sign(")", "')'");
        }
        if self.keyword("CASE") {
            return self.nested(Compiler::case);
        }
        if self.at_path() {
            let parts = self.path()?;
            self.emit(Step::Path(parts));
            return Ok(());
        }
        if self.call_follows() {
            return self.call();
        }
        let value = match self.peek() {
            Token::Int(number) => Value::Int(*number),
            Token::Float(number) => Value::Float(*number),
            Token::Text(text) => Value::Text(text.clone()),
            Token::Word(word) if word.eq_ignore_ascii_case("TRUE") => Value::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("FALSE") => Value::Bool(false),
            Token::Word(word) if word.eq_ignore_ascii_case("NULL") => Value::Null,
            _ => return self.expected("a value"),
        };
        self.at += 1;
        self.emit(Step::Constant(value));
        Ok(())
    }

    /// `CASE WHEN condition THEN value ... [ELSE value] END`
    fn case(&mut self) -> Result<(), Error> {
        let mut ends = Vec::new();
        if !self.keyword("WHEN") {
            return self.expected("WHEN");
        }
        loop {
            self.expression()?;
            let next = self.emit(Step::SkipUnlessTrue(0));
            if !self.keyword("THEN") {
                return self.expected("THEN");
            }
            self.expression()?;
            ends.push(self.emit(Step::Skip(0)));
            self.land(next);
            if !self.keyword("WHEN") {
                break;
            }
        }
        if self.keyword("ELSE") {
            self.expression()?;
        } else {
            self.emit(Step::Constant(Value::Null));
        }
        if !self.keyword("END") {
            return self.expected("END");
        }
        for end in ends {
            self.land(end);
        }
        Ok(())
    }

    fn call(&mut self) -> Result<(), Error> {
        let column = self.column();
        let written = self.name(true)?;
        let Some((function, name, least, most)) = Function::named(&written) else {
            return Err(Error { column, problem: Problem::NoFunction(written) });
        };
        self.expect_sign("(", "'('")?;
        let count = self.list()?;
        if !(least..=most).contains(&count) {
            let wanted = match (least, most) {
                (1, 1) => "1",
                (1, 2) => "1 or 2",
                (2, 2) => "2",
                (2, 3) => "2 or 3",
                (3, 3) => "3",
                _ => "2 to 16",
            };
            return Err(Error { column, problem: Problem::Arguments { name, wanted, found: count } });
        }
        self.emit(Step::Call(function, count));
        Ok(())
    }

    /// One or more expressions up to the closing bracket; how many.
    fn list(&mut self) -> Result<usize, Error> {
        let mut count = 0;
        loop {
            self.nested(Compiler::expression)?;
            count += 1;
            if self.sign(")") {
                return Ok(count);
            }
            if !self.sign(",") {
                return self.expected("',' or ')'");
            }
        }
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Compiler) -> Result<(), Error>) -> Result<(), Error> {
        if self.depth == DEPTH_MAX {
            return self.fail(Problem::TooDeep);
        }
        self.depth += 1;
        inner(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |spanned| &spanned.token)
    }

    fn call_follows(&self) -> bool {
        matches!(self.peek(), Token::Word(word) if !is_keyword(word))
            && self.tokens.get(self.at + 1).is_some_and(|next| next.token == Token::Sign("("))
    }

    fn expect_sign(&mut self, sign: &str, wanted: &'static str) -> Result<(), Error> {
        if self.sign(sign) { Ok(()) } else { self.expected(wanted) }
    }

    /// Appends a step; its index.
    fn emit(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    /// Lets an earlier jump lead to the next step.
    fn land(&mut self, jump: usize) {
        let here = self.steps.len();
        debug_assert!(jump < here, "jumps go forward only");
        match self.steps.get_mut(jump) {
            Some(Step::SkipIfFalse(to) | Step::SkipIfTrue(to) | Step::SkipUnlessTrue(to) | Step::Skip(to)) => {
                *to = here
            }
            _ => debug_assert!(false, "only jumps land"),
        }
    }
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}
