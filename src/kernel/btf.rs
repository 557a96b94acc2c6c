//! What functions and hooks this kernel has, and with how many parameters: its own BTF says so.

use std::collections::HashMap;
use std::sync::OnceLock;

use libbpf_rs::btf::{Btf, BtfKind, BtfType, types};

use crate::error::{Error, ErrorKind, Result};

/// The functions of the running kernel that somebody asked about.
#[derive(Debug)]
pub(crate) struct KernelBtf {
    params: OnceLock<HashMap<String, usize>>,
}

impl KernelBtf {
    pub(crate) fn new() -> Self {
        KernelBtf {
            params: OnceLock::new(),
        }
    }

    /// Number of parameters of a kernel function; `None` when the kernel does not have it.
    ///
    /// The first call reads every function of the kernel (5 to 10 ms): a start that asks nothing does not pay.
    pub(crate) fn params(&self, function: &str) -> Result<Option<usize>> {
        if !kept(function) {
            // It would pass for a function that the kernel lacks.
            return Err(Error::new(
                ErrorKind::Load,
                format!("{function} is not among the functions that are read; this is a defect"),
            ));
        }
        if let Some(known) = self.params.get() {
            return Ok(known.get(function).copied());
        }
        let read = read_functions()?;
        Ok(self.params.get_or_init(|| read).get(function).copied())
    }
}

/// Hooks, and the functions that the kernel half follows; the other 60,000 stay where they are.
fn kept(name: &str) -> bool {
    ["bpf_lsm_", "security_", "vfs_", "do_fil"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || matches!(
            name,
            "create_io_thread" | "exit_files" | "finalize_exec" | "wake_up_new_task"
        )
}

fn read_functions() -> Result<HashMap<String, usize>> {
    let btf = Btf::from_vmlinux().map_err(|e| {
        Error::new(
            ErrorKind::Unsupported,
            "this kernel has no type information (BTF)",
        )
        .with_source(e)
        .with_hint("use a kernel built with CONFIG_DEBUG_INFO_BTF=y")
    })?;
    let mut found = HashMap::new();
    for id in 1..u32::try_from(btf.len()).unwrap_or(u32::MAX) {
        let Some(ty) = btf.type_by_id::<BtfType<'_>>(id.into()) else {
            continue;
        };
        if ty.kind() != BtfKind::Func {
            continue;
        }
        let Some(name) = ty.name().and_then(|n| n.to_str()) else {
            continue;
        };
        if !kept(name) {
            continue;
        }
        if let Some(proto) = ty
            .next_type()
            .and_then(|t| types::FuncProto::try_from(t).ok())
        {
            found.insert(name.to_owned(), proto.len());
        }
    }
    Ok(found)
}
