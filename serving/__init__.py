"""What the services of the control plane stand on: gunicorn, TLS that renews itself, health, logs (docs/adr/0004)."""
