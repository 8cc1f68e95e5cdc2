//! What people, or a client that comes to another node, ask of one node: a question by its name, with a document, and a
//! document back. Dispatch carries it to where it is answered, and knows none of the answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fulmar_broker::NodeId;
use serde_json::Value;

use super::Dispatch;
use crate::cluster::calls::Consulting;

/// For another node to answer: people wait for it, and one that is cut off is shown as such.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_500);

/// Bytes of a question.
const QUESTION_BYTES_MAX: usize = 256 << 10;

/// What is answered, or why it is not.
pub type Consulted = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

/// Whoever answers what people ask of this node.
pub trait Consultant: Send + Sync {
    fn consult(&self, question: &str, document: Value) -> Consulted;
}

impl Dispatch {
    /// Names who answers. Once; until then nothing is answered.
    pub fn consult_by(&self, consultant: Arc<dyn Consultant>) {
        // There is one set of operations in the life of a node.
        let _ = self.consultant.set(consultant);
    }

    /// Asks a node, which may be this one.
    ///
    /// # Errors
    /// It is not reached in time, or refuses.
    pub async fn consult(&self, node: NodeId, question: &str, document: Value) -> Result<Value, String> {
        if node == self.replica.run().0 {
            return self.consulted(question, document).await;
        }
        let document = Bytes::from(document.to_string());
        let runtime = self.calls.runtime();
        let answer = self.replica.consult(node, question, document, ANSWER_WITHIN, runtime).await?;
        serde_json::from_slice(&answer).map_err(|error| format!("node {:016x} answers with no JSON: {error}", node.0))
    }

    fn consulted(&self, question: &str, document: Value) -> Consulted {
        match self.consultant.get() {
            Some(consultant) => consultant.consult(question, document),
            None => Box::pin(async { Err("this node is starting".to_owned()) }),
        }
    }

    /// Answers another node.
    pub(super) fn consulted_by_peer(&self, question: &str, document: &[u8]) -> Consulting {
        let read = match document {
            long if long.len() > QUESTION_BYTES_MAX => Err("the question is too long".to_owned()),
            document => serde_json::from_slice(document).map_err(|error| format!("the question is no JSON: {error}")),
        };
        let consulting = read.map(|document| self.consulted(question, document));
        Box::pin(async move { consulting?.await.map(|document| Bytes::from(document.to_string())) })
    }
}
