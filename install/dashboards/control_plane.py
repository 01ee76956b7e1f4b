"""Discovery, ca and webhook, by their own metrics and the agents' (docs/telemetry.md)."""

from __future__ import annotations

from install.dashboards.panels import LEFT, Dashboard, Panel, Query, or_zero, quantile, quantiles, rate

CONTROL_PLANE = Dashboard(
    "control-plane",
    "Control plane",
    (
        (
            "From a change to proxies",
            (
                Panel(
                    "Until proxies have applied a change",
                    "s",
                    quantiles("pilot_proxy_convergence_time"),
                    about="From the change's arrival at discovery to Envoy's word that it works with it.",
                ),
                Panel(
                    "Where the time goes, p99",
                    "s",
                    (
                        Query(quantile(0.99, "pilot_debounce_time"), "end of the burst"),
                        Query(quantile(0.99, "pilot_pushcontext_init_seconds"), "snapshot"),
                        Query(quantile(0.99, "pilot_proxy_queue_time"), "a proxy's turn"),
                        Query(quantile(0.99, "pilot_xds_push_time"), "its configuration"),
                    ),
                ),
                Panel("Pushes", "ops", (Query(rate("pilot_xds_pushes", by="type"), "{{type}}"),)),
                Panel(
                    "Size of pushes, p99", "bytes", quantiles("pilot_xds_config_size_bytes", by="type", shares=(0.99,))
                ),
                Panel(
                    "Events of the API server",
                    "ops",
                    (
                        Query(rate("pilot_k8s_cfg_events", by="type, event"), "{{type}} {{event}}"),
                        Query(rate("pilot_k8s_reg_events", by="type, event"), "{{type}} {{event}}"),
                    ),
                ),
                Panel(
                    "Snapshots, by what changed", "ops", (Query(rate("pilot_push_triggers", by="type"), "{{type}}"),)
                ),
            ),
        ),
        (
            "Proxies",
            (
                Panel(
                    "Connected, by version", "none", (Query("sum by (version) (pilot_xds)", "{{version}}"),), width=6
                ),
                Panel(
                    "Refused, and not computed",
                    "ops",
                    (
                        Query(rate("pilot_total_xds_rejects", by="type"), "{{type}} refused"),
                        Query(rate("pilot_total_xds_internal_errors"), "not computed"),
                    ),
                    width=6,
                ),
                Panel(
                    "Behind",
                    "none",
                    (
                        Query(or_zero("count(heddle_agent_rejected_resources > 0)"), "refuse something"),
                        Query(or_zero("count(heddle_agent_discovery_connected == 0)"), "have no connection"),
                    ),
                    width=6,
                ),
                Panel(
                    "Known",
                    "none",
                    (
                        Query("max(pilot_services)", "services"),
                        Query("max(pilot_virt_services)", "VirtualServices"),
                    ),
                    width=6,
                ),
            ),
        ),
        (
            "Certificates",
            (
                Panel(
                    "Issued, by how the caller proved itself",
                    "ops",
                    (Query(rate("heddle_ca_certificates_issued_total", by="caller"), "{{caller}}"),),
                ),
                Panel(
                    "Refused, and failed",
                    "ops",
                    (
                        Query(rate("heddle_ca_requests_refused_total", by="code"), "{{code}}"),
                        Query(rate("citadel_server_csr_sign_err_count"), "failed at signing"),
                    ),
                ),
                Panel("Time to issue", "s", quantiles("heddle_ca_issue_seconds")),
                Panel(
                    "Authorities end in",
                    "s",
                    (
                        Query("min(citadel_server_root_cert_expiry_timestamp) - time()", "root"),
                        Query("min by (pod) (citadel_server_cert_chain_expiry_timestamp) - time()", "{{pod}}"),
                    ),
                    "stat",
                ),
                Panel(
                    "Leaves end in",
                    "s",
                    (
                        Query(f"min({LEFT} > 0) - time()", "the first"),
                        Query(f"quantile(0.5, {LEFT} > 0) - time()", "half of them"),
                    ),
                ),
                Panel(
                    "Rotation of the root: its phase, for how long",
                    "s",
                    (
                        Query(
                            "time() - max by (phase, paused) (heddle_ca_rotation_phase_since_timestamp_seconds)",
                            "{{phase}}, paused: {{paused}}",
                        ),
                    ),
                    "stat",
                ),
            ),
        ),
        (
            "Admission",
            (
                Panel(
                    "Injection",
                    "ops",
                    tuple(
                        Query(rate(f"sidecar_injection_{name}_total"), name) for name in ("success", "skip", "failure")
                    ),
                ),
                Panel(
                    "Validation",
                    "ops",
                    (
                        Query(or_zero(rate("galley_validation_passed")), "passed"),
                        Query(or_zero(rate("galley_validation_failed")), "refused"),
                        Query(or_zero(rate("heddle_validation_warnings_total")), "warnings"),
                        Query(rate("galley_validation_http_error"), "no review"),
                    ),
                ),
                Panel(
                    "Tried by an Envoy before it is admitted",
                    "ops",
                    (Query(or_zero(rate("heddle_preflight_total", by="result")), "{{result}}"),),
                ),
                Panel("Validation enforced", "bool_yes_no", (Query("max(heddle_validation_enforced)"),), "stat", 12),
                Panel(
                    "Serving certificates end in",
                    "s",
                    (
                        Query("min(heddle_ca_certificate_expiry_timestamp_seconds) - time()", "ca"),
                        Query("min(heddle_webhook_certificate_expiry_timestamp_seconds) - time()", "webhook"),
                    ),
                    "stat",
                    12,
                ),
            ),
        ),
    ),
)
