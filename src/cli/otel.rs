//! Reads the environment variables of OpenTelemetry's SDK specification. They are fallbacks for the
//! trace settings: a flag or a `STACKTOKEN_` variable takes precedence.

use std::env;

use clap::{ArgMatches, parser::ValueSource};

use crate::config::{self, Traces};

/// Reads an environment variable. Returns `None` if it is unset or empty, which the specification
/// treats as unset.
#[expect(clippy::disallowed_methods, reason = "these variables are not ours")]
pub fn read(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Fills in trace settings that were set neither by a flag nor by a `STACKTOKEN_` variable.
/// `matches` must be those of the subcommand that has these flags.
///
/// # Errors
/// Returns a message that names the variable whose value cannot be used.
pub fn fill(
    traces: &mut Traces,
    matches: &ArgMatches,
    read: impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let is_unset = |setting| {
        let source = matches.value_source(setting);
        source.is_none_or(|source| source == ValueSource::DefaultValue)
    };
    if is_unset("otlp_endpoint") {
        traces.otlp_endpoint = endpoint(&read);
    }
    if is_unset("trace_sample_ratio")
        && let Some(ratio) = ratio(&read)?
    {
        traces.trace_sample_ratio = ratio;
    }
    Ok(())
}

/// Returns the collector's URL; `None` if traces are disabled or another exporter or protocol than
/// OTLP over gRPC is requested.
fn endpoint(read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let of_traces = |name: &str| {
        read(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
            .or_else(|| read(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    let is_disabled = read("OTEL_SDK_DISABLED").is_some_and(|value| value == "true");
    let is_other = read("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter != "otlp");
    let is_http = of_traces("PROTOCOL").is_some_and(|protocol| protocol != "grpc");
    if is_disabled || is_other || is_http {
        return None;
    }
    of_traces("ENDPOINT").map(|url| url.trim_end_matches('/').to_owned())
}

/// Returns the fraction of calls to trace if the caller has not decided.
fn ratio(read: impl Fn(&str) -> Option<String>) -> Result<Option<f64>, String> {
    let Some(sampler) = read("OTEL_TRACES_SAMPLER") else {
        return Ok(None);
    };
    match sampler.trim_start_matches("parentbased_") {
        "always_on" => Ok(Some(1.0)),
        "always_off" => Ok(Some(0.0)),
        "traceidratio" => {
            let Some(text) = read("OTEL_TRACES_SAMPLER_ARG") else {
                return Ok(Some(1.0));
            };
            let named = |problem| format!("OTEL_TRACES_SAMPLER_ARG: {problem}");
            config::ratio(&text).map(Some).map_err(named)
        }
        _ => Err(
            "OTEL_TRACES_SAMPLER: expected always_on, always_off or traceidratio, or one of \
                  these with the prefix parentbased_"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::fill;
    use crate::{cli::Cli, config::Traces};

    fn parsed(variables: &[(&str, &str)], flags: &[&str]) -> Result<Traces, String> {
        let read = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let serve = ["stacktoken", "serve", "--issuers", "x"];
        let matches = Cli::command().get_matches_from(serve.iter().chain(flags));
        let (_, serve) = matches.subcommand().unwrap();
        let mut traces = Traces::from_arg_matches(serve).unwrap();
        fill(&mut traces, serve, read)?;
        Ok(traces)
    }

    #[test]
    fn the_variables_of_opentelemetry_are_fall_backs() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317/");
        let endpoint =
            |variables: &[_], flags: &[_]| parsed(variables, flags).unwrap().otlp_endpoint;
        assert_eq!(endpoint(&[], &[]), None);
        assert_eq!(endpoint(&[general], &[]).unwrap(), "http://a:4317");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:4317");
        assert_eq!(
            endpoint(&[general, of_traces], &[]).unwrap(),
            "http://b:4317"
        );
        let flag = ["--otlp-endpoint", "http://c:4317"];
        assert_eq!(endpoint(&[general], &flag).unwrap(), "http://c:4317");
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ] {
            assert_eq!(endpoint(&[general, off], &[]), None, "{off:?}");
        }
    }

    #[test]
    fn the_sampler_of_opentelemetry_decides_where_the_flag_does_not() {
        let ratio = |variables: &[_], flags: &[_]| {
            parsed(variables, flags).map(|traces| traces.trace_sample_ratio)
        };
        assert_eq!(ratio(&[], &[]), Ok(0.01));
        let by_ratio = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        let quarter = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
        assert_eq!(ratio(&[by_ratio, quarter], &[]), Ok(0.25));
        assert_eq!(ratio(&[by_ratio], &[]), Ok(1.0));
        assert_eq!(
            ratio(&[by_ratio, quarter], &["--trace-sample-ratio", "0.5"]),
            Ok(0.5)
        );
        assert_eq!(
            ratio(&[("OTEL_TRACES_SAMPLER", "always_off")], &[]),
            Ok(0.0)
        );
        let wrong = ("OTEL_TRACES_SAMPLER_ARG", "2");
        let error = ratio(&[by_ratio, wrong], &[]).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER_ARG: "), "{error}");
        let error = ratio(&[("OTEL_TRACES_SAMPLER", "jaeger_remote")], &[]).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER: "), "{error}");
    }
}
