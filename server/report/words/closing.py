"""Texts on implementation, security, data, responsibility, and on where a guideline is answered."""

WORDS = {
    "implementation": ("5. Implementation", "5. Umsetzung"),
    "random": ("Randomness and versions", "Zufall und Versionen"),
    "random.title": ("randomness", "Zufall"),
    "random.text": (
        "discrete Gaussian noise and Poisson sampling, from ChaCha20 with {key}",
        "diskretes Gauß-Rauschen und Poisson-Stichproben, aus ChaCha20 mit {key}",
    ),
    "random.counted": (
        "discrete Gaussian noise, from ChaCha20 with {key}; all records are counted, without sampling",
        "diskretes Gauß-Rauschen, aus ChaCha20 mit {key}; alle Datensätze werden gezählt, ohne "
        "Stichprobe",
    ),
    "key.seed": (
        "a key from the run's seed, which is not secret",
        "einem Schlüssel aus dem Startwert des Laufs, der nicht geheim ist",
    ),
    "key.operating-system": (
        "a key from the operating system, which no file holds",
        "einem Schlüssel des Betriebssystems, der in keiner Datei steht",
    ),
    "versions": ("packages that made this report", "Pakete, die diesen Bericht erstellt haben"),
    "sources": ("sources, SHA-256", "Quelltexte, SHA-256"),
    "audit": ("Attacks that were tried", "Angriffe, die versucht wurden"),
    "audit.none": (
        "No attack was tried in this run.",
        "In diesem Lauf wurde kein Angriff versucht.",
    ),
    "audit.people": (
        "Other audits, as people state: {text}",
        "Weitere Prüfungen, nach Angabe: {text}",
    ),
    "audit.passed": ("not refuted", "nicht widerlegt"),
    "audit.failed": ("REFUTED", "WIDERLEGT"),
    # None: the report holds the sentence in English.
    "audit.verdict": (
        "{verdict}",
        "{correct} von {guesses} Vermutungen des Prüfers trafen zu; das belegt ein &epsilon; von "
        "mindestens {low}, zugesagt ist {claimed}. Ein Mechanismus mit halbem Rauschen zeigte in neun "
        "von zehn Prüfungen {half}.",
    ),
    "audit.canaries": (
        "Canaries: the schedule was trained once more, on phantoms and made-up gradients, each of "
        "which was in with probability &frac12;; an auditor who sees every step guesses which were in "
        "({methods}).",
        "Kanarienvögel (canaries): Der Ablaufplan wurde noch einmal trainiert, auf Phantomen und "
        "erfundenen Gradienten, die jeweils mit Wahrscheinlichkeit &frac12; dabei waren; ein Prüfer, "
        "der jeden Schritt sieht, rät, welche es waren ({methods}).",
    ),
    "audit.members": ("trained on / not", "trainiert / nicht"),
    "audit.found": ("found at {alarms}<br>false alarms", "gefunden bei {alarms}<br>Fehlalarmen"),
    "audit.auc": ("AUC of<br>the attack", "AUC des<br>Angriffs"),
    "audit.refutes": ("refutes", "widerlegt"),
    "audit.allowed": ("allowed {share}", "zulässig {share}"),
    "audit.membership": (
        "A membership attack on each site's final model, its own heads included: {attacks}. It is the "
        "simplest attack, and far from the best. The AUC of one that only guesses is 0.5.",
        "Ein Zugehörigkeitsangriff auf das fertige Modell jedes Standorts, eigene Antwortschichten "
        "eingeschlossen: {attacks}. Es ist der einfachste Angriff und bei weitem nicht der beste. Wer "
        "nur rät, erreicht eine AUC von 0,5.",
    ),
    "repeat": ("Details for repeating this run", "Angaben zur Wiederholung des Laufs"),
    "repeat.run": ("run", "Lauf"),
    "repeat.seed": ("seed", "Startwert"),
    "repeat.model": ("model", "Modell"),
    "repeat.parameters": (", {n} shared parameters", ", {n} gemeinsame Parameter"),
    "repeat.schedule": ("schedule", "Ablaufplan"),
    "repeat.heads": (", heads only", ", nur Antwortschichten"),
    "repeat.own-heads": (
        ", each site's own heads only",
        ", nur die eigenen Antwortschichten jedes Standorts",
    ),
    "repeat.kind": (
        ", shared with sites of the same kind of image only",
        ", nur mit Standorten derselben Art von Bildern geteilt",
    ),
    "repeat.alone": (
        ", each site alone and nothing sent",
        ", jeder Standort allein, nichts gesendet",
    ),
    "repeat.frozen": (
        ", each site's own tensors frozen",
        ", eigene Tensoren jedes Standorts eingefroren",
    ),
    "repeat.losses": ("losses:", "Verluste:"),
    "repeat.answers": ("answers", "Antworten"),
    "repeat.masked": (
        "masked: the server learned the sum over all sites of a round, and no site's part of it; each "
        "site's noise and epsilon are as without masks",
        "maskiert: Der Server erfuhr die Summe über alle Standorte einer Runde und keinen einzelnen "
        "Beitrag; Rauschen und &epsilon; jedes Standorts sind wie ohne Masken",
    ),
    "repeat.masked-shared": (
        "masked: the server learned the sum over all sites of a round, and no site's part of it; each "
        "site added a share of the noise",
        "maskiert: Der Server erfuhr die Summe über alle Standorte einer Runde und keinen einzelnen "
        "Beitrag; jeder Standort fügte einen Anteil des Rauschens hinzu",
    ),
    "repeat.recipe": ("reason for it", "Begründung"),
    "repeat.public": ("public pre-training", "öffentliches Vortraining"),
    "repeat.free": ("(costs no epsilon)", "(kostet kein &epsilon;)"),
    "repeat.no-public": ("none", "keines"),
    "repeat.features": ("frozen features", "eingefrorene Merkmale"),
    "repeat.outside": ("code from outside", "Programmcode von außen"),
    "repeat.outside.text": (
        "{code}. FedMedformer's tests do not cover it",
        "{code}. Die Tests von FedMedformer decken ihn nicht ab",
    ),
    "repeat.outside.one": (
        "{name}, sources with SHA-256 {sha}",
        "{name}, Quelltexte mit SHA-256 {sha}",
    ),
    "repeat.start": ("started from", "Ausgangsmodell"),
    "security": ("6. Security", "6. Sicherheit"),
    "security.seals": ("Signatures and ledgers", "Signaturen und Budgetbücher"),
    "security.none": (
        "No guard has signed a receipt, and no row of a ledger was reported.",
        "Kein Guard hat eine Quittung signiert, und keine Zeile eines Budgetbuchs wurde gemeldet.",
    ),
    "security.rows": ("newest ledger rows reported", "jüngste gemeldete Zeilen der Budgetbücher"),
    "security.rows.text": (
        "{rows}; a site checks that its ledger still holds its row with {command}",
        "{rows}; ob sein Budgetbuch diese Zeile noch enthält, prüft ein Standort mit {command}",
    ),
    "security.signed": ("receipts signed by", "Quittungen signiert von"),
    "security.guard": ("the guard of {site} {key}", "Guard von {site} {key}"),
    "security.signed.text": (
        "{guards}. {verify} checks every signature and recomputes every &epsilon;; compare the "
        "fingerprints with what the hospitals' {show} shows",
        "{guards}. {verify} prüft jede Signatur und berechnet jedes &epsilon; neu; vergleichen Sie "
        "die Fingerabdrücke mit dem, was {show} in den Kliniken anzeigt",
    ),
    "events": (
        "Refusals, absences, late joins and damaged checkpoints",
        "Ablehnungen, Ausfälle, spätere Beitritte und beschädigte Sicherungspunkte",
    ),
    "events.round": ("round", "Runde"),
    "events.event": ("event", "Ereignis"),
    "events.reason": ("reason", "Grund"),
    "event.refusal": ("refusal", "Ablehnung"),
    "event.refused-update": ("refused-update", "abgelehnte Aktualisierung"),
    "event.absent": ("absent", "Ausfall"),
    "event.joined": ("joined", "Beitritt"),
    "event.checkpoint-damaged": ("checkpoint-damaged", "beschädigter Sicherungspunkt"),
    "events.none": (
        "The coordinator noted none. What a site refused by itself, before it took part or in another "
        "run, stands on its own ledger ({command}).",
        "Die Koordinationsstelle hat keine vermerkt. Was ein Standort selbst abgelehnt hat, bevor er "
        "teilnahm oder in einem anderen Lauf, steht in seinem eigenen Budgetbuch ({command}).",
    ),
    "data": ("7. Data", "7. Daten"),
    "data.kind": ("static or dynamic", "statisch oder dynamisch"),
    "data.static": (
        "static: the records of each site at the time of the run. A record that is withdrawn or "
        "corrected between two rounds is left out or read anew from the next round on; nothing that "
        "was sent is taken back",
        "statisch: die Datensätze jedes Standorts zur Zeit des Laufs. Wird ein Datensatz zwischen "
        "zwei Runden zurückgezogen oder berichtigt, so entfällt er ab der nächsten Runde oder wird "
        "neu gelesen; bereits Gesendetes wird nicht zurückgenommen",
    ),
    "data.where": ("where they are", "Speicherort"),
    "data.where.text": (
        "images and labels stay at the sites; the coordinator keeps what section 4 lists",
        "Bilder und Befunde bleiben an den Standorten; die Koordinationsstelle bewahrt auf, was "
        "Abschnitt 4 aufführt",
    ),
    "stated": (
        "8. Responsibility: statements of the coordinator",
        "8. Verantwortung: Angaben der Koordinationsstelle",
    ),
    "stated.text": (
        "No file of a run knows what stands here and where this report names the coordinator's word. "
        "The coordinator wrote it; nothing in this report proves it.",
        "Was hier steht, und was dieser Bericht sonst als Angabe bezeichnet, geht aus keiner Datei "
        "des Laufs hervor. Die Koordinationsstelle hat es verfasst; nichts in diesem Bericht belegt "
        "es.",
    ),
    "about.controllers": ("controllers", "Verantwortliche"),
    "about.contact": ("contact", "Kontakt"),
    "about.purpose": ("purpose of the processing", "Zweck der Verarbeitung"),
    "about.legal_basis": ("legal basis", "Rechtsgrundlage"),
    "about.intended_use": ("purpose of the model", "Zweckbestimmung des Modells"),
    "about.region": ("region and law", "Region und anwendbares Recht"),
    "about.data_collection": ("patients and records", "betroffene Personen und Datenerhebung"),
    "about.epsilon_chosen_because": ("why this epsilon", "Begründung für &epsilon;"),
    "about.settings_chosen_by": (
        "how people chose the settings",
        "Wahl der Einstellungen durch Menschen",
    ),
    "about.audit": ("other audits", "weitere Prüfungen"),
    "about.groups": ("effect on groups of patients", "Wirkung auf Patientengruppen"),
    "about.permit": (
        "permit under Regulation (EU) 2025/327 (EHDS)",
        "Datengenehmigung nach Verordnung (EU) 2025/327 (EHDS)",
    ),
    "about.output_check": ("check of the output", "Prüfung der Ergebnisse vor Weitergabe"),
    "about.withdrawal": ("withdrawal", "Widerruf und Widerspruch"),
    "about.retention": ("retention", "Aufbewahrung und Löschung"),
    "about.name": ("name of the published model", "Name des veröffentlichten Modells"),
    "about.curators": ("published by", "veröffentlicht von"),
    "about.published": ("published on", "veröffentlicht am"),
    "about.sources": ("sources", "Quellen"),
    "map": ("9. Where NIST SP 800-226 is answered", "9. Wo NIST SP 800-226 beantwortet wird"),
    "map.text": (
        "The guideline <i>Evaluating Differential Privacy Guarantees</i> judges a guarantee by the "
        "layers of a pyramid, each of which rests on those below. The order of this report is theirs, "
        "from the top.",
        "Die Leitlinie <i>Evaluating Differential Privacy Guarantees</i> beurteilt eine Garantie nach "
        "den Ebenen einer Pyramide, von denen jede auf den unteren ruht. Dieser Bericht folgt ihnen "
        "von oben nach unten.",
    ),
    "map.layer": ("layer", "Ebene"),
    "map.section": ("section", "Abschnitt"),
    "map.epsilon": ("epsilon, unit of privacy, variant", "Epsilon, geschützte Einheit, Variante"),
    "map.algorithm": ("algorithms, utility and bias", "Algorithmen, Nutzen und Verzerrung"),
    "map.trust": ("trust model and query model", "Vertrauens- und Abfragemodell"),
    "map.implementation": ("implementation of the mechanism", "Umsetzung des Mechanismus"),
    "map.security": ("security and access control", "Sicherheit und Zugriffskontrolle"),
    "map.data": ("data collection", "Datenerhebung"),
    "end": (
        "The file {json} beside this page holds the same numbers for programs; its schema is {schema}.",
        "Die Datei {json} neben dieser Seite enthält dieselben Zahlen für Programme; ihr Schema ist "
        "{schema}.",
    ),
}
