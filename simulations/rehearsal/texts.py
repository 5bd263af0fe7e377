"""The files that people write in a rehearsal, in the words of docs/hospital.md."""

CONSORTIUM = """\
name: {name}
hosts: [localhost]
listen: 127.0.0.1  # this machine only
port: {port}
health_port: {health_port}
sites:
{sites}
"""
SITE = """\
name: {name}
domain: {{name: {name}, modality: chest-xray, anatomy: chest, channels: 1}}
tasks: [{{name: finding, kind: binary-class, classes: 2}}]
data: {{source: phantoms, kind: chest, records: 120, seed: {seed}}}
privacy: {{epsilon: 3, epsilon_budget: 9, delta: 1.0e-5, n_public: 120}}
"""
POLICY = """\
signer: "FINGERPRINT-OF-SIGNER"
objectives: [supervised]
max_epsilon_per_run: 3
accept_unit_image: true  # each invented patient has one image
approval: {approval}
peers: {peers}
"""
RUN = """\
name: {name}-1
phases:
  - {{name: supervised, rounds: 2, objectives: {{supervised: 1.0}}, expected_batch_size: 32}}
sites:
{sites}
"""
MEMBER = "  {name}: {{name: {name}, modality: chest-xray, anatomy: chest, channels: 1}}"
