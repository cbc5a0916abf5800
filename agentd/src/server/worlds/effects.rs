//! Effects that are not settled, and the answers of people.

use agentd_engine::{Input, Open, Phase, State};
use agentd_model::Principal;
use agentd_protocol::{AnswerParams, EffectView, ErrorCode, ErrorObject};

use super::text::params_json;
use super::{asked, find, take, usage};
use crate::server::Service;
use crate::server::connection::Answer;

pub(super) fn effect_view(open: &Open) -> EffectView {
    let phase = match open.phase {
        Phase::Asked => "asked",
        Phase::Ready => "ready",
        Phase::Attempted { .. } => "attempted",
    };
    EffectView {
        effect: open.intent.id.to_string(),
        kind: open.intent.kind.to_string(),
        origin: open.intent.origin.name().to_string(),
        params: params_json(&open.intent),
        record: open.wanted.0,
        phase: phase.to_owned(),
    }
}

pub(super) async fn answer(params: AnswerParams, by: Principal, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, &params.world)?;
    let prefix = params.effect.clone();
    let look = move |state: &State| -> Vec<_> {
        state.open().map(|open| open.intent.id).filter(|id| id.to_string().starts_with(&prefix)).collect()
    };
    let found = handle.look(look).await.map_err(asked)?;
    let hint = format!("agentctl world effects {}", params.world);
    let intent = match found.as_slice() {
        [intent] => *intent,
        [] => {
            return Err(
                ErrorObject::new(ErrorCode::Failed, format!("there is no open effect {}", params.effect)).hint(hint)
            );
        }
        _ => return Err(usage(format!("several effects begin with {}", params.effect)).hint(hint)),
    };
    take(&handle, Input::Answer { intent, allow: params.allow, by, note: params.note }).await
}
