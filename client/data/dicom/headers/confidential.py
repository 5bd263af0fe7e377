"""Attributes that the Basic Application Level Confidentiality Profile removes or replaces, by
keyword: PS3.15 2026c, Table E.1-1.

Left out are those that `deidentified.py` recognises by their type: names of persons (PN), dates and
times (DA, DT, TM), and sequences, whose items are examined. UIDs are left out because it cannot be
seen whether they were replaced, and PatientID because it tells patients apart: it holds a
pseudonym.
"""


def listed(text: str) -> frozenset[str]:
    """Split a text into its words."""
    return frozenset(text.split())


PATIENT = listed("""
    AccessionNumber AdmissionID ClinicalTrialSubjectID InsurancePlanIdentification
    IssuerOfPatientID MedicalRecordLocator OtherPatientIDs OtherPatientNames PatientAddress
    PatientBirthDate PatientBirthName PatientBirthTime PatientMotherBirthName PatientName
    PatientTelecomInformation PatientTelephoneNumbers PersonAddress PersonTelecomInformation
    PersonTelephoneNumbers ResponsiblePerson ServiceEpisodeID SpecimenAccessionNumber
""")
"""Keywords of attributes that name the patient, or number the patient in a hospital's books."""

PLACES = listed("""
    AcquisitionDeviceProcessingDescription AddressTrial CameraOwnerName CassetteID
    ClinicalTrialCoordinatingCenterName ClinicalTrialProtocolEthicsCommitteeApprovalNumber
    ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialSiteID ClinicalTrialSiteName
    ClinicalTrialSponsorName CurrentPatientLocation DestinationAE DetectorID
    DeviceAlternateIdentifier DeviceDescription DeviceLabel DeviceSerialNumber
    DeviceSettingDescription DistributionAddress FixationDeviceDescription GantryID GeneratorID
    HardcopyCreationDeviceID HumanPerformerOrganization InstitutionAddress InstitutionName
    InstitutionalDepartmentName IssuerOfClinicalTrialSiteID LensMake LensModel LensSerialNumber
    LensSpecification LongDeviceDescription ManufacturerDeviceIdentifier ModifyingDeviceID
    NetworkID OrderCallbackTelecomInformation OrderEntererLocation Originator
    PatientInstitutionResidence PerformedLocation PerformedStationAETitle PerformedStationName
    PlateID RTAccessoryDeviceSlotID RTPhysicianIntentNarrative ReceivingAE
    ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers RequestedProcedureLocation
    RequestingAE RequestingService ResponsibleOrganization RetrieveAETitle
    ScheduledPatientInstitutionResidence ScheduledProcedureStepLocation ScheduledStationAETitle
    ScheduledStationName ScheduledStudyLocation ScheduledStudyLocationAETitle
    SecondaryCaptureDeviceID ShieldingDeviceDescription SourceManufacturer SourceSerialNumber
    StationAETitle StationName TelephoneNumberTrial TreatmentMachineName TreatmentSite
    TreatmentSites UniqueDeviceIdentifier VerifyingOrganization XRayDetectorID XRayDetectorLabel
    XRaySourceID
""")
"""Keywords of attributes that name places, persons and devices."""

OTHERS = listed("""
    AcquisitionComments AcquisitionContextDescription AcquisitionFieldOfViewLabel
    AcquisitionProtocolDescription AdditionalPatientHistory AdmittingDiagnosesDescription
    Allergies AnnotationGroupDescription AnnotationGroupLabel Arbitrary BarcodeValue
    BeamDescription BolusDescription BranchOfService CertificateOfSigner CertifiedTimestamp
    ChannelDerivationDescription ChannelLabel ClinicalTrialProtocolID ClinicalTrialProtocolName
    ClinicalTrialSeriesDescription ClinicalTrialSeriesID ClinicalTrialSubjectReadingID
    ClinicalTrialTimePointDescription ClinicalTrialTimePointID CommentsOnRadiationDose
    CommentsOnThePerformedProcedureStep CompensatorDescription
    ConceptualVolumeCombinationDescription ConceptualVolumeDescription
    ConfidentialityConstraintOnPatientDataDescription ContainerComponentID ContainerDescription
    ContainerIdentifier ContrastBolusAgent ContributionDescription CountryOfResidence
    DataSetTrailingPadding DecompositionDescription DerivationDescription
    DischargeDiagnosisDescription DisplacementReferenceLabel DoseReferenceDescription
    EncapsulatedDocument EntityDescription EntityLabel EntityLongLabel EntityName
    EquipmentFrameOfReferenceDescription EthnicGroup FillerOrderNumberImagingServiceRequest
    FilterLookupTableDescription FlowIdentifier FractionGroupDescription FractionationNotes
    FrameComments FrameOriginTimestamp IdentifyingComments ImageComments
    ImagePresentationComments ImagingServiceRequestComments Impressions InstanceOriginStatus
    InterlockDescription InterlockOriginDescription InterpretationDiagnosisDescription
    InterpretationID InterpretationIDIssuer InterpretationText IssuerOfAdmissionID
    IssuerOfClinicalTrialProtocolID IssuerOfClinicalTrialSeriesID IssuerOfClinicalTrialSubjectID
    IssuerOfClinicalTrialSubjectReadingID IssuerOfClinicalTrialTimePointID
    IssuerOfServiceEpisodeID LabelText MAC MakerNote MedicalAlerts MilitaryRank
    ModifiedImageDescription ModifyingSystem MultienergyAcquisitionDescription
    MultiplexGroupLabel NonconformingDataElementValue Occupation OrderCallbackPhoneNumber
    OverlayComments OverlayData PatientAge PatientComments PatientReligiousPreference
    PatientSetupPhotoDescription PatientSex PatientSexNeutered PatientSize PatientState
    PatientTransportArrangements PatientTreatmentPreparationMethodDescription
    PatientTreatmentPreparationProcedureParameterDescription PatientWeight
    PerformedProcedureStepDescription PerformedProcedureStepID
    PlacerOrderNumberImagingServiceRequest PositionAcquisitionTemplateDescription
    PositionAcquisitionTemplateName PreMedication PregnancyStatus PrescriptionDescription
    PrescriptionNotes PriorTreatmentDoseDescription ProtocolName PyramidDescription PyramidLabel
    ROIDescription ROIGenerationDescription ROIName ROIObservationDescription
    ROIObservationLabel RTAccessoryHolderSlotID RTPlanDescription RTPlanLabel RTPlanName
    RTPrescriptionLabel RTToleranceSetLabel RTTreatmentApproachLabel
    RadiationDoseIdentificationLabel RadiationDoseInVivoMeasurementLabel
    RadiationGenerationModeDescription RadiationGenerationModeLabel ReasonForOmissionDescription
    ReasonForStudy ReasonForSuperseding ReasonForTheAttributeModification
    ReasonForTheImagingServiceRequest ReasonForTheRequestedProcedure ReasonForVisit
    RegionOfResidence RequestedContrastAgent RequestedProcedureComments
    RequestedProcedureDescription RequestedProcedureID RequestedSeriesDescription
    RespiratoryMotionCompensationTechniqueDescription ResultsComments ResultsID ResultsIDIssuer
    ScheduledProcedureStepDescription ScheduledProcedureStepID SeriesDescription
    ServiceEpisodeDescription SetupTechniqueDescription SlideIdentifier SmokingStatus
    SourceIdentifier SourceOfPreviousValues SpecialNeeds SpecimenDetailedDescription
    SpecimenIdentifier SpecimenShortDescription StructureSetDescription StructureSetLabel
    StructureSetName StudyComments StudyDescription StudyID StudyIDIssuer TextComments
    TextString TimezoneOffsetFromUTC TopicAuthor TopicKeywords TopicSubject TopicTitle
    TreatmentPositionGroupLabel TreatmentTechniqueNotes TreatmentToleranceViolationDescription
    UnformattedTextValue UserContentLabel UserContentLongLabel VisitComments
    WaveformFilterDescription
""")
"""Keywords of free text that may name persons, and of attributes that describe the patient."""
