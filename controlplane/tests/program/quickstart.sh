#!/usr/bin/env bash
# The quickstart of IPAuth's API reference, line by line: only host and key are replaced.
set -euo pipefail

# Whoami
curl -s https://plane.example.org/api/v1/account \
  -H "Authorization: Bearer $IPAUTH_API_KEY"

# Register a server (creates a pair; server_key returned once)
curl -s https://plane.example.org/api/v1/pairs \
  -H "Authorization: Bearer $IPAUTH_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"name":"ops-vps-1"}'

# Read a group's live IP allowlist (feed into ufw / NOC / Cloudflare)
curl -s https://plane.example.org/api/v1/groups/7/ips \
  -H "Authorization: Bearer $IPAUTH_API_KEY"
