//! stub
use agentd_air::{Definitions, Hash, Name, Plan, Value};
use minicbor::{Decode, Encode};
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Instance {
    #[n(0)]
    pub plan: Name,
}
pub enum Wanted {
    Emit { step: u32, effect: Name, capability: Name, params: Vec<u8> },
    Raise { step: u32, event: Name, value: Vec<u8> },
    End { result: Ending },
}
pub enum Happening<'a> {
    Emitted { step: u32, intent: Hash },
    Receipt { intent: Hash, value: &'a Value },
    Event { schema: &'a Name, value: &'a Value },
}
pub enum Ending {
    A,
}
impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("")
    }
}
impl Instance {
    pub fn start(plan: &Plan, _input: &Value) -> Instance {
        Instance { plan: plan.name.clone() }
    }
    pub fn go_on(&mut self, _p: &Plan, _t: &Definitions, _h: Option<Happening<'_>>) -> Vec<Wanted> {
        vec![]
    }
    pub fn ended(&self) -> Option<&Ending> {
        None
    }
    pub fn waits_for_event(&self, _p: &Plan, _s: &Name) -> bool {
        false
    }
}
