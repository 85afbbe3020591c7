//! The commands that a switch needs, each with the exchanges that QEMU wants around it.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{Qmp, QmpError};

/// Pause between two questions whether a state has been written or read.
const SAVING: Duration = Duration::from_millis(20);

impl Qmp {
    /// Sets the carrier of a NIC as the guest sees it.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub(crate) async fn set_link(
        &self,
        id: &str,
        up: bool,
        limit: Duration,
    ) -> Result<(), QmpError> {
        self.execute("set_link", Some(json!({"name": id, "up": up})), limit)
            .await
            .map(drop)
    }

    /// Stops the guest and writes its state to `file`, which is open for writing only. False if it
    /// could not be written completely within `limit`; `command` is the limit of each exchange. For
    /// `in_set` see [`crate::qemu::Features::state_files`].
    ///
    /// # Errors
    /// See [`QmpError`].
    pub(crate) async fn save(
        &self,
        file: BorrowedFd<'_>,
        in_set: bool,
        limit: Duration,
        command: Duration,
    ) -> Result<bool, QmpError> {
        self.execute("stop", None, command).await?;
        // 0 means unlimited.
        let unlimited = json!({"max-bandwidth": 0});
        self.execute("migrate-set-parameters", Some(unlimited), command)
            .await?;
        let uri = if in_set {
            let added = self.execute_with("add-fd", None, Some(file), command);
            format!("file:/dev/fdset/{}", added.await?["fdset-id"])
        } else {
            let name = "state";
            self.hand_over(name, file, command).await?;
            format!("fd:{name}")
        };
        self.execute("migrate", Some(json!({"uri": uri})), command)
            .await?;
        let ended = async {
            loop {
                let answer = self.execute("query-migrate", None, command).await?;
                match answer["status"].as_str() {
                    Some("completed") => return Ok(true),
                    Some("failed" | "cancelled") | None => return Ok(false),
                    Some(_) => sleep(SAVING).await,
                }
            }
        };
        timeout(limit, ended).await.unwrap_or(Ok(false))
    }

    /// Waits until QEMU has read the guest's saved state, then lets the guest run. A QEMU that cannot
    /// use the state ends.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub(crate) async fn resume(&self, limit: Duration) -> Result<(), QmpError> {
        let read = async {
            loop {
                let answer = self.execute("query-status", None, limit).await?;
                if answer["status"] != "inmigrate" {
                    return Ok(());
                }
                sleep(SAVING).await;
            }
        };
        timeout(limit, read)
            .await
            .unwrap_or(Err(QmpError::Timeout {
                command: "query-status",
                limit,
            }))?;
        self.execute("cont", None, limit).await.map(drop)
    }

    /// Hands the connection of a VNC client to QEMU. If there is a `password`, the client must know it
    /// (only the first 8 bytes count, RFC 6143 section 7.2.2).
    ///
    /// # Errors
    /// See [`QmpError`].
    pub(crate) async fn add_vnc_client(
        &self,
        client: BorrowedFd<'_>,
        password: Option<&str>,
        limit: Duration,
    ) -> Result<(), QmpError> {
        if let Some(password) = password {
            let arguments = json!({"protocol": "vnc", "password": password});
            self.execute("set_password", Some(arguments), limit).await?;
        }
        let name = "vnc-client";
        self.hand_over(name, client, limit).await?;
        let arguments = json!({"protocol": "vnc", "fdname": name, "skipauth": password.is_none()});
        self.execute("add_client", Some(arguments), limit).await?;
        Ok(())
    }

    /// Hands a descriptor to QEMU, for a command that takes one by name. QEMU closes an earlier one of
    /// that name that no command took.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub(crate) async fn hand_over(
        &self,
        name: &str,
        descriptor: BorrowedFd<'_>,
        limit: Duration,
    ) -> Result<(), QmpError> {
        let arguments = json!({"fdname": name});
        self.execute_with("getfd", Some(arguments), Some(descriptor), limit)
            .await
            .map(drop)
    }
}
