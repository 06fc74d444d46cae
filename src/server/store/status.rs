//! The columns of a status: one list, from which statements that write, read and bind them are made for either
//! database. A new field of [`Status`] is added to the end of a list below, to [`StatusRow`], and to the migrations.

use super::values::{parse, to_u32};
use crate::model::{Failure, Remark, SessionId, Status, Timestamp, bytes};
use serde_json::{Map, Value, json};
use sqlx::{Database, Encode, Type, query::Query};

/// Turns the list into the macros and functions of which statements are put together. Parameters before `$4` belong to
/// the statement itself.
macro_rules! status_columns {
    (
        changes { $($change:ident $change_parameter:literal $of_change:expr;)+ }
        steps { $($step:ident $step_parameter:literal $type:literal $of_step:expr;)+ }
    ) => {
        /// The SET clause for every column of a status, with the parameters that [`bind`] binds.
        macro_rules! set_status {
            () => {
                concat!(
                    $(", ", stringify!($change), " = ", $change_parameter,)+
                    $(", ", stringify!($step), " = ", $step_parameter,)+
                )
            };
        }

        /// The columns of a [`StatusRow`], from `sessions s`.
        macro_rules! selected_status {
            () => {
                concat!(
                    "s.segments, s.first_segment, s.attempt",
                    $(", s.", stringify!($change),)+
                    $(", s.", stringify!($step),)+
                )
            };
        }

        /// The SET clause for every column of a status, from a [`row`]. On SQLite each row is the `value` of `new`.
        macro_rules! set_row_sqlite {
            () => {
                concat!(
                    $(", ", stringify!($change), " = new.value ->> '", stringify!($change), "'",)+
                    $(", ", stringify!($step), " = new.value ->> '", stringify!($step), "'",)+
                )
            };
        }

        /// The same on PostgreSQL, where `new` has columns.
        macro_rules! set_row_postgres {
            () => {
                concat!(
                    $(", ", stringify!($change), " = new.", stringify!($change),)+
                    $(", ", stringify!($step), " = new.", stringify!($step),)+
                )
            };
        }

        /// The columns of a [`row`] with their PostgreSQL types. Those of `changes` are texts.
        macro_rules! status_record {
            () => {
                concat!(
                    "id text, attempt bigint",
                    $(", ", stringify!($change), " text",)+
                    $(", ", stringify!($step), " ", $type,)+
                )
            };
        }

        /// Binds every column of a status, after the statement's own three parameters.
        pub(super) fn bind<'q, DB: Database>(
            query: Query<'q, DB, DB::Arguments>,
            status: &Status,
        ) -> Query<'q, DB, DB::Arguments>
        where
            for<'t> i64: Encode<'t, DB> + Type<DB>,
            for<'t> f64: Encode<'t, DB> + Type<DB>,
            for<'t> String: Encode<'t, DB> + Type<DB>,
            for<'t> Option<i64>: Encode<'t, DB>,
            for<'t> Option<f64>: Encode<'t, DB>,
            for<'t> Option<String>: Encode<'t, DB>,
        {
            query
                $(.bind(value(status, $of_change)))+
                $(.bind(value(status, $of_step)))+
        }

        /// All values of a status, as a JSON object; a statement takes an array of them.
        pub(super) fn row(status: &Status) -> Value {
            let mut row = Map::new();
            row.insert("id".to_owned(), json!(status.session_id));
            row.insert("attempt".to_owned(), json!(status.attempt));
            $(row.insert(stringify!($change).to_owned(), json!(value(status, $of_change)));)+
            $(row.insert(stringify!($step).to_owned(), json!(value(status, $of_step)));)+
            Value::Object(row)
        }
    };
}

/// Remarks as they are stored: a JSON array, or nothing if there are none.
fn remarks_text(remarks: &[Remark]) -> String {
    if remarks.is_empty() { String::new() } else { json!(remarks).to_string() }
}

/// Evaluates the expression of a column.
fn value<T>(status: &Status, of: impl Fn(&Status) -> T) -> T {
    of(status)
}

status_columns! {
    // Changed only with the state or the stage.
    changes {
        status "$4" |s| s.state.as_str().to_owned();
        stage "$5" |s| s.stage.map(|stage| stage.as_str().to_owned());
        error_code "$6" |s| s.error.as_ref().map(|error| error.code.clone());
        error_message "$7" |s| s.error.as_ref().map(|error| error.message.clone());
    }
    // Changed by all progress; with their types on PostgreSQL.
    steps {
        version "$8" "bigint" |s| s.version as i64;
        updated_at "$9" "bigint" |s| s.timestamp.0;
        progress "$10" "double precision" |s| s.progress;
        message "$11" "text" |s| s.message.clone();
        duration_processed "$12" "double precision" |s| s.duration_processed;
        duration_total "$13" "double precision" |s| s.duration_total;
        estimated_completion "$14" "bigint" |s| s.estimated_completion.map(|at| at.0);
        processing_speed "$15" "double precision" |s| s.processing_speed;
        remarks "$16" "text" |s| remarks_text(&s.remarks);
    }
}

/// The columns of a status in the table.
#[derive(sqlx::FromRow)]
pub(super) struct StatusRow {
    segments: i64,
    first_segment: i64,
    attempt: i64,
    status: String,
    stage: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    version: i64,
    updated_at: i64,
    progress: Option<f64>,
    message: String,
    duration_processed: f64,
    duration_total: Option<f64>,
    estimated_completion: Option<i64>,
    processing_speed: Option<f64>,
    remarks: String,
}

impl StatusRow {
    /// Converts the row into a status, given its position in the queue, and the room on a worker's disk or the model that
    /// it waits for.
    pub(super) fn into_status(
        self,
        session_id: SessionId,
        queue_position: Option<u32>,
        needs_room: Option<u64>,
        needs_model: Option<String>,
    ) -> Result<Status, sqlx::Error> {
        // The position changes without a write to this row, so the message that contains it is made when the row is
        // read.
        let message = match (queue_position, needs_room) {
            (Some(_), _) if needs_model.is_some() => needs_model.unwrap_or_default(),
            (Some(_), Some(needed)) => format!("Waiting for room on the server's disk: needs about {}", bytes(needed)),
            (Some(0), None) => "Next in line".to_owned(),
            (Some(1), None) => "Waiting for 1 session before it".to_owned(),
            (Some(n), None) => format!("Waiting for {n} sessions before it"),
            (None, _) => self.message,
        };
        Ok(Status {
            session_id,
            version: self.version as u64,
            state: parse(&self.status)?,
            stage: self.stage.as_deref().map(parse).transpose()?,
            progress: self.progress,
            message,
            timestamp: Timestamp(self.updated_at),
            duration_processed: self.duration_processed,
            duration_total: self.duration_total,
            estimated_completion: self.estimated_completion.map(Timestamp),
            processing_speed: self.processing_speed,
            segments: to_u32(self.segments),
            first_segment: to_u32(self.first_segment),
            queue_position,
            attempt: to_u32(self.attempt),
            remarks: match self.remarks.as_str() {
                "" => Vec::new(),
                text => serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(e.into()))?,
            },
            error: self.error_code.map(|code| Failure { code, message: self.error_message.unwrap_or_default() }),
        })
    }
}
