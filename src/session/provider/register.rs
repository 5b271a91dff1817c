//! Registers each provider with a session's options.
//!
//! Options are passed under ONNX Runtime's own names if its interface accepts names. DirectML and MIGraphX take a
//! structure instead; it is filled here, and unknown options are rejected.

use std::collections::BTreeMap;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider};
use ort::session::builder::SessionBuilder;

/// A provider's options, under ONNX Runtime's own names.
pub(super) type ProviderOptions = BTreeMap<String, String>;

/// Registers a provider that takes options by name.
pub(super) fn by_name<E>(builder: &mut SessionBuilder, options: &ProviderOptions) -> ort::Result<()>
where
    E: ExecutionProvider + ArbitrarilyConfigurableExecutionProvider + Default,
{
    options.iter().fold(E::default(), |ep, (key, value)| ep.with_arbitrary_config(key, value)).register(builder)
}

/// The option for the way in which an arena grows: by default its size doubles, which takes up to twice the memory in use.
const GROWTH: [&str; 2] = ["arena_extend_strategy", "kSameAsRequested"];

/// Registers a provider that takes options by name and has an arena, which grows by as much as is requested unless an option
/// says otherwise.
pub(super) fn with_arena<E>(builder: &mut SessionBuilder, options: &ProviderOptions) -> ort::Result<()>
where
    E: ExecutionProvider + ArbitrarilyConfigurableExecutionProvider + Default,
{
    let [key, value] = GROWTH;
    let mut options = options.clone();
    options.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    by_name::<E>(builder, &options)
}

/// Does nothing: the CPU provider is always there and needs no registration.
pub(super) fn nothing(_: &mut SessionBuilder, _: &ProviderOptions) -> ort::Result<()> {
    Ok(())
}

pub(super) fn directml(builder: &mut SessionBuilder, options: &ProviderOptions) -> ort::Result<()> {
    use ep::directml::{DeviceFilter, PerformancePreference};
    let mut dml = ep::DirectML::default();
    for (key, value) in options {
        dml = match (key.as_str(), value.as_str()) {
            ("device_id", id) => dml.with_device_id(number(key, id)?),
            ("performance_preference", "default") => dml.with_performance_preference(PerformancePreference::Default),
            ("performance_preference", "high_performance") => {
                dml.with_performance_preference(PerformancePreference::HighPerformance)
            }
            ("performance_preference", "minimum_power") => {
                dml.with_performance_preference(PerformancePreference::MinimumPower)
            }
            ("device_filter", "gpu") => dml.with_device_filter(DeviceFilter::Gpu),
            ("device_filter", "npu") => dml.with_device_filter(DeviceFilter::Npu),
            ("device_filter", "any") => dml.with_device_filter(DeviceFilter::Any),
            _ => {
                return Err(unknown(
                    key,
                    value,
                    "device_id, performance_preference (default, high_performance, minimum_power), \
                     device_filter (gpu, npu, any)",
                ));
            }
        };
    }
    dml.register(builder)
}

pub(super) fn migraphx(builder: &mut SessionBuilder, options: &ProviderOptions) -> ort::Result<()> {
    let mut migraphx = ep::MIGraphX::default();
    for (key, value) in options {
        migraphx = match key.as_str() {
            "device_id" => migraphx.with_device_id(number(key, value)?),
            "migraphx_fp16_enable" => migraphx.with_fp16(switch(key, value)?),
            "migraphx_fp8_enable" => migraphx.with_fp8(switch(key, value)?),
            "migraphx_int8_enable" => migraphx.with_int8(switch(key, value)?),
            "migraphx_save_model_path" => migraphx.with_save_model(value),
            "migraphx_load_model_path" => migraphx.with_load_model(value),
            "migraphx_exhaustive_tune" => migraphx.with_exhaustive_tune(switch(key, value)?),
            "migraphx_mem_limit" => migraphx.with_mem_limit(number(key, value)?),
            _ => {
                return Err(unknown(
                    key,
                    value,
                    "device_id, migraphx_fp16_enable, migraphx_fp8_enable, migraphx_int8_enable, \
                     migraphx_save_model_path, migraphx_load_model_path, migraphx_exhaustive_tune, migraphx_mem_limit",
                ));
            }
        };
    }
    migraphx.register(builder)
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> ort::Result<T> {
    value.parse().map_err(|_| ort::Error::new(format!("option {key}: expected a number, found {value:?}")))
}

fn switch(key: &str, value: &str) -> ort::Result<bool> {
    match value {
        "1" | "true" | "True" => Ok(true),
        "0" | "false" | "False" => Ok(false),
        _ => Err(ort::Error::new(format!("option {key}: expected true or false, found {value:?}"))),
    }
}

fn unknown(key: &str, value: &str, known: &str) -> ort::Error {
    ort::Error::new(format!("option {key} = {value:?} is unknown; the known options are {known}"))
}
