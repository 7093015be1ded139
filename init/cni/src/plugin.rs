//! The plugin: what each call does, through the one trait by which it touches the world.
//!
//! Not here: reading and printing (`call.rs`).

use crate::annotation;
use crate::call::{Call, Command, Configuration, Failure, Pod, code, versions};
use init::Plan;
use std::path::Path;

/// What a call does outside of its own process. Errors are sentences.
pub trait World {
    /// Puts the plan in force in the network namespace of this file.
    fn install(&self, namespace: &Path, plan: &Plan) -> Result<(), String>;
    /// What differs from the plan there, a sentence each.
    fn differences(&self, namespace: &Path, plan: &Plan) -> Result<Vec<String>, String>;
    /// Asks the agent for the pod's annotation; none when it carries none.
    fn ask(&self, socket: &Path, pod: &Pod) -> Result<Option<String>, String>;
}

/// Carries out a call. What is printed on standard output, and whether it is an error; further lines are for standard error.
pub fn run(
    variable: &dyn Fn(&str) -> Option<String>,
    input: &str,
    world: &dyn World,
    note: &mut dyn FnMut(String),
) -> (String, bool) {
    let call = match Call::read(variable, input) {
        Ok(call) => call,
        Err(failure) => return (failure.print(&version_of(input)), false),
    };
    let version = call.configuration.cni_version.clone();
    match carry_out(call, world, note) {
        Ok(output) => (output, true),
        Err(failure) => (failure.print(&version), false),
    }
}

fn carry_out(call: Call, world: &dyn World, note: &mut dyn FnMut(String)) -> Result<String, Failure> {
    match call.command {
        Command::Version => Ok(versions(&call.configuration.cni_version)),
        // The rules go with their namespace. With the agent gone, pods whose annotations the runtime tells are redirected all the
        // same: this plugin can always be called.
        Command::Del | Command::Gc | Command::Status => Ok(String::new()),
        Command::Add => {
            if let Some(plan) = wanted(&call, world, note)? {
                world.install(&call.namespace, &plan).map_err(|error| not_redirected(&call, error))?;
            }
            Ok(previous(call.configuration))
        }
        Command::Check => {
            let Some(plan) = wanted(&call, world, note)? else { return Ok(String::new()) };
            let differences = world.differences(&call.namespace, &plan);
            let differences = differences.map_err(|error| not_redirected(&call, error))?;
            if differences.is_empty() {
                return Ok(String::new());
            }
            let message = format!("the pod is not redirected as {} says", annotation::REDIRECT);
            Err(Failure::new(code::DIFFERS, message, differences.join("; ")))
        }
    }
}

/// The plan of this pod; none when it is not for us.
fn wanted(call: &Call, world: &dyn World, note: &mut dyn FnMut(String)) -> Result<Option<Plan>, Failure> {
    let value = match (call.configuration.annotations(), &call.pod, &call.configuration.socket) {
        (Some(annotations), _, _) => annotations.get(annotation::REDIRECT).map(|value| (*value).to_owned()),
        (None, Some(pod), Some(socket)) => match world.ask(socket, pod) {
            Ok(value) => value,
            // To fail would keep every pod of this node from starting, the agent's own too. A pod that is to be redirected
            // waits in its init container weft-validate until the agent has mended it.
            Err(error) => {
                note(format!(
                    "weft-cni: {}/{} passes, its annotations are not known: {error}",
                    pod.namespace, pod.name
                ));
                None
            }
        },
        (None, _, _) => None,
    };
    let plan = value.as_deref().map(annotation::plan).transpose();
    plan.map_err(|error| {
        Failure::new(
            code::INVALID_CONFIGURATION,
            error,
            "correct the pod's weft.mesh/ annotations, and make it anew",
        )
    })
}

fn not_redirected(call: &Call, error: String) -> Failure {
    let namespace = call.namespace.display();
    Failure::new(
        code::NOT_REDIRECTED,
        format!("the pod in {namespace} could not be redirected to its proxy"),
        error,
    )
}

fn previous(configuration: Configuration) -> String {
    configuration.prev_result.map(|result| format!("{}\n", result.get())).unwrap_or_default()
}

/// The version that a configuration names which is wrong otherwise.
fn version_of(input: &str) -> String {
    let configuration: Option<serde_json::Value> = serde_json::from_str(input).ok();
    let version = configuration.as_ref().and_then(|configuration| configuration["cniVersion"].as_str());
    version.unwrap_or_default().to_owned()
}
