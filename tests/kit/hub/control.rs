//! The test Hub's switches over HTTP, for scripts and for programs that cannot call it.
//!
//! `POST /faults` with a rule (`{"fault": "rate", "bytes_per_sec": 1000000, "file": "model.safetensors"}`) breaks
//! something, `DELETE /faults` heals all; `POST /api/refuse`, `/api/restore`, `/data/refuse`, `/data/restore` close and
//! open an address; `POST /expire` ends all signatures; `GET /ledger` tells what was seen and sent, `DELETE /ledger`
//! forgets it.

use std::sync::{Arc, PoisonError};

use axum::extract::{Path, State as Shares};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::{Host, Ledger, Rule, Shared};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/faults", post(add_fault).delete(heal))
        .route("/ledger", get(ledger).delete(forget))
        .route("/expire", post(expire))
        .route("/{host}/{what}", post(switch))
        .with_state(shared)
}

async fn add_fault(Shares(shared): Shares<Arc<Shared>>, Json(rule): Json<Rule>) {
    shared.lock().rules.push(rule);
}

async fn heal(Shares(shared): Shares<Arc<Shared>>) {
    shared.lock().rules.clear();
}

async fn ledger(Shares(shared): Shares<Arc<Shared>>) -> Json<serde_json::Value> {
    let state = shared.lock();
    let mut value = serde_json::to_value(&state.ledger).unwrap_or_default();
    value["sent_in_all"] = state.ledger.sent_in_all().into();
    Json(value)
}

async fn forget(Shares(shared): Shares<Arc<Shared>>) {
    shared.lock().ledger = Ledger::default();
}

async fn expire(Shares(shared): Shares<Arc<Shared>>) {
    shared.lock().epoch += 1;
}

async fn switch(Shares(shared): Shares<Arc<Shared>>, Path((host, what)): Path<(Host, String)>) -> StatusCode {
    let open = match what.as_str() {
        "refuse" => false,
        "restore" => true,
        _ => return StatusCode::NOT_FOUND,
    };
    shared.switches.lock().unwrap_or_else(PoisonError::into_inner).push((host, open));
    StatusCode::ACCEPTED
}
